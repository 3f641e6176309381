// SPDX-License-Identifier: MPL-2.0

/// Why a text is not JSON, and where.
public struct JSONError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What was found or missing.
    public let message: String
    /// The number of bytes before the problem.
    public let offset: Int
    /// The line of the problem, from 1.
    public let line: Int
    /// The byte of the problem within its line, from 1.
    public let column: Int

    /// Makes an error from its parts.
    public init(message: String, offset: Int, line: Int, column: Int) {
        self.message = message
        self.offset = offset
        self.line = line
        self.column = column
    }

    /// One line with message and place.
    public var description: String {
        "\(message) at line \(line), column \(column)"
    }
}
