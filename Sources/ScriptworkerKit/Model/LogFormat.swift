// SPDX-License-Identifier: MPL-2.0

/// Fills in log formats of the form `%(name)8s`.
enum LogFormat {
    static func line(_ format: String, _ values: [String: String]) -> String {
        var result = ""
        var rest = format[...]
        while let start = rest.firstIndex(of: "%") {
            result += rest[..<start]
            rest = rest[rest.index(after: start)...]
            guard rest.first == "(", let end = rest.firstIndex(of: ")") else {
                result += "%"
                if rest.first == "%" { rest.removeFirst() }
                continue
            }
            let value = values[String(rest[rest.index(after: rest.startIndex)..<end])] ?? ""
            rest = rest[rest.index(after: end)...]
            let width = rest.prefix { $0 == "-" || $0.isNumber }
            rest = rest[width.endIndex...]
            if rest.first == "s" || rest.first == "d" { rest.removeFirst() }
            let number = Int(width) ?? 0
            let padding = String(repeating: " ", count: max(0, min(abs(number), 200) - value.count))
            result += number < 0 ? value + padding : padding + value
        }
        return result + rest
    }
}

/// Cuts what gives access out of URLs before they are logged.
enum URLMask {
    private static let marks = [
        "bewit=", "AWSAccessKeyId=", "access_token=", "Credential=", "X-Amz-Signature=", "X-Amz-Security-Token=",
        "Signature=", "sig=",
    ]

    /// The text up to the first mark of each word that has one.
    static func masked(_ text: String) -> String {
        // Few lines have any, and this is asked about every line of every log.
        guard text.utf8.contains(UInt8(ascii: "=")), marks.contains(where: { text.contains($0) }) else { return text }
        return text.split(separator: " ", omittingEmptySubsequences: false).map { word in
            let cut = marks.compactMap { word.firstRange(of: $0)?.lowerBound }.min()
            return cut.map { word[..<$0] + "<snip>" } ?? word
        }.joined(separator: " ")
    }
}
