// SPDX-License-Identifier: MPL-2.0

/// Query options, compared with what an endpoint declares.
enum QueryOptions {
    /// Decodes the options of a query and refuses those that are unknown, repeated, nested or of the wrong shape.
    ///
    /// A rule for `*` lets unknown options pass and leaves them out.
    static func parse(_ raw: Substring?, _ rules: [String: QueryRule]) throws(APIError) -> [String: String] {
        guard let raw, !raw.isEmpty else { return [:] }
        var options: [String: String] = [:]
        var problems: [String] = []
        for piece in raw.split(separator: "&") {
            let parts = piece.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard
                let key = parts.first.flatMap(PercentEncoding.decodeQuery),
                let value = parts.count > 1 ? PercentEncoding.decodeQuery(parts[1]) : ""
            else {
                throw APIError(.invalidRequestArguments, "The query string holds a malformed percent-encoding")
            }
            // Signatures travel in the query of any endpoint; the authenticator looks at them.
            if key == "bewit" { continue }
            let name = key.prefix { $0 != "[" }
            guard let rule = rules[String(name)] else {
                if rules["*"] != nil { continue }
                problems.append("Query option '\(name)' is not supported")
                continue
            }
            if rule.mayRepeat, let known = options[key] {
                options[key] = "\(known),\(value)"
                if !rule.matches(value) { problems.append("Query option '\(key)' has a value that makes no sense") }
                continue
            }
            guard name.count == key.count, options[key] == nil else {
                problems.append("Query option '\(name)' must be a string")
                continue
            }
            options[key] = value
            if !rule.matches(value) {
                problems.append(
                    "Query option '\(key)' given as '\(value)' must match regular expression: \(rule.pattern)"
                )
            }
        }
        guard problems.isEmpty else {
            throw APIError(.invalidRequestArguments, problems.joined(separator: "\n"))
        }
        return options
    }

    /// A query for logs and nothing else: signatures and whatever looks like a token are dots.
    static func redacted(_ raw: Substring?) -> String {
        guard let raw else { return "" }
        return raw.split(separator: "&").map { piece in
            let key = piece.prefix { $0 != "=" }
            return isSecret(key.lowercased()) ? "\(key)=..." : String(piece)
        }
        .joined(separator: "&")
    }

    private static func isSecret(_ key: String) -> Bool {
        ["bewit", "token", "access_token", "credential", "signature", "secret", "password"].contains(key)
    }
}
