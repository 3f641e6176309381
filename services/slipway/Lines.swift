// SPDX-License-Identifier: MPL-2.0

import JSON

/// Commands that answer one line of JSON on standard input with one on standard output.
enum Lines {
    /// Answers every line in order; blank lines are left out, a line that makes no sense ends the command.
    static func answer(_ body: (JSONValue) throws -> JSONValue) throws {
        var number = 0
        while let line = readLine() {
            number += 1
            guard line.contains(where: { !$0.isWhitespace }) else { continue }
            do {
                try Bytes.write(Array((try body(try JSONValue(parsing: line)).text() + "\n").utf8))
            } catch let error as JSONError {
                throw Failure(usage: "line \(number) is not JSON: \(error)")
            } catch let failure as Failure {
                throw Failure(usage: "line \(number): \(failure.message)")
            }
        }
    }
}
