// SPDX-License-Identifier: MPL-2.0

/// Makes routing keys out of words that come from outside.
enum RoutingWords {
    /// The most bytes a routing key may have on the wire.
    static let limit = 255

    /// Joins words to a key that always has as many words as were given.
    ///
    /// A key that would be too long loses the ends of its longest words.
    static func key(_ words: [String]) -> String {
        var words = words.map(word)
        var excess = words.reduce(words.count - 1) { $0 + $1.utf8.count } - limit
        while excess > 0 {
            guard let longest = words.indices.max(by: { words[$0].utf8.count < words[$1].utf8.count }) else { break }
            words[longest].removeLast()
            excess -= 1
        }
        return words.joined(separator: ".")
    }

    /// One word: dots become `%` as in Taskcluster's exchanges for GitHub, what is neither a letter, a digit nor one of
    /// `-_%/+@:~` in ASCII becomes `_`, and nothing at all becomes `_` too.
    static func word(_ text: String) -> String {
        var bytes: [UInt8] = []
        for scalar in text.unicodeScalars.prefix(limit) {
            switch scalar {
            case "a"..."z", "A"..."Z", "0"..."9", "-", "_", "%", "/", "+", "@", ":", "~":
                bytes.append(UInt8(truncatingIfNeeded: scalar.value))
            case ".": bytes.append(UInt8(ascii: "%"))
            default: bytes.append(UInt8(ascii: "_"))
            }
        }
        return bytes.isEmpty ? "_" : String(decoding: bytes, as: UTF8.self)
    }
}
