// SPDX-License-Identifier: MPL-2.0

/// The reader of files of `NAME=VALUE` lines.
///
/// Blank lines, `#` comments and a leading `export` are accepted; a value may stand in single or double quotes.
enum SettingsFile {
    /// Parses a text into its values and the numbers of the lines that make no sense.
    static func parse(_ text: String) -> (values: [String: String], badLines: [Int]) {
        var values: [String: String] = [:]
        var badLines: [Int] = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            var rest = trimmed(line)
            guard !rest.isEmpty, !rest.hasPrefix("#") else { continue }
            if rest.hasPrefix("export ") { rest = trimmed(rest.dropFirst(7)) }
            guard let equals = rest.firstIndex(of: "="), isName(rest[..<equals]) else {
                badLines.append(index + 1)
                continue
            }
            values[String(rest[..<equals])] = unquoted(trimmed(rest[rest.index(after: equals)...]))
        }
        return (values, badLines)
    }

    private static func isName(_ text: Substring) -> Bool {
        guard let first = text.first, !first.isNumber else { return false }
        return text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
    }

    private static func trimmed(_ text: Substring) -> Substring {
        var text = text
        while text.first?.isWhitespace == true { text.removeFirst() }
        while text.last?.isWhitespace == true { text.removeLast() }
        return text
    }

    private static func unquoted(_ text: Substring) -> String {
        guard let quote = text.first, quote == "\"" || quote == "'", text.count >= 2, text.last == quote else {
            return String(text)
        }
        return String(text.dropFirst().dropLast())
    }
}
