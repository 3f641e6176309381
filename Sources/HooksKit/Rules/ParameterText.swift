// SPDX-License-Identifier: MPL-2.0

/// What may follow a bar in an expression.
enum ParameterFilter: String {
    case fromNow = "from-now"
    case asSlugid = "as-slugid"
}

/// The inside of `{{ … }}`: a value and the filters it goes through.
struct ParameterExpression: Sendable {
    /// The expression with its braces, for when it means nothing.
    let source: String
    /// The quoted text it begins with, if it does.
    let literal: String?
    /// The name it begins with otherwise.
    let name: String
    let filters: [String]

    init(source: String, inside: Substring) {
        let parts = inside.split(separator: "|", omittingEmptySubsequences: false).map { Self.trimmed($0) }
        self.source = source
        name = parts[0]
        filters = Array(parts.dropFirst())
        let isQuoted =
            name.utf8.count >= 2 && name.first == name.last && (name.first == "'" || name.first == "\"")
        literal = isQuoted ? String(name.dropFirst().dropLast()) : nil
    }

    private static func trimmed(_ text: Substring) -> String {
        var rest = text.drop { $0.isWhitespace }
        while rest.last?.isWhitespace == true { rest.removeLast() }
        return String(rest)
    }
}

/// A string of a template, cut into what stays and what is replaced.
struct ParameterText: Sendable {
    enum Piece: Sendable {
        case plain(String)
        case expression(ParameterExpression)
    }

    let source: String
    let pieces: [Piece]

    /// Whether there is nothing to replace.
    var isPlain: Bool {
        pieces.allSatisfy { if case .plain = $0 { true } else { false } }
    }

    /// Cuts a text; an expression ends at its first closing brace, wherever that stands.
    init(_ text: String) {
        source = text
        var pieces: [Piece] = []
        let bytes = text.utf8
        var plain = bytes.startIndex
        var cursor = bytes.startIndex
        while let start = bytes[cursor...].firstIndex(of: UInt8(ascii: "{")) {
            cursor = bytes.index(after: start)
            guard cursor < bytes.endIndex, bytes[cursor] == UInt8(ascii: "{") else { continue }
            let inside = bytes.index(after: cursor)
            guard let end = bytes[inside...].firstIndex(of: UInt8(ascii: "}")) else { break }
            let second = bytes.index(after: end)
            guard second < bytes.endIndex, bytes[second] == UInt8(ascii: "}") else { continue }
            let after = bytes.index(after: second)
            if plain < start { pieces.append(.plain(String(text[plain..<start]))) }
            pieces.append(
                .expression(ParameterExpression(source: String(text[start..<after]), inside: text[inside..<end]))
            )
            cursor = after
            plain = after
        }
        if plain < bytes.endIndex || pieces.isEmpty { pieces.append(.plain(String(text[plain...]))) }
        self.pieces = pieces
    }
}
