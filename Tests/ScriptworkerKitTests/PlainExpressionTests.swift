// SPDX-License-Identifier: MPL-2.0

import Testing

@testable import ScriptworkerKit

struct PlainExpressionTests {
    private static let declared = [
        #"^(?P<path>/acme/product)(/|\.git|$)"#, #"^(?P<path>/mozilla-(central|unified))(/|$)"#,
        #"^(?P<path>/releases/mozilla-(beta|release|esr\d+))(/|$)"#,
        #"^(?P<path>/o/scriptworker(?:|-scripts))(/|\.git|$)"#,
        #"^/api/queue/v1/task/(?P<taskId>[^/]+)(/runs/\d+)?/artifacts/(?P<filepath>.*)$"#,
        #"(?<a>x|xy)(?<b>y?)z"#, #"^(?<a>a+?)(?<b>a*)$"#, #"(?<a>[a-c_.]+)-(?<b>[^@]*)$"#, #"^((?<a>b)|c)+$"#, #"^$"#,
        #"(?<w>\w+)@(?<h>[\w.-]+)"#, #""#, #"a|^b|c$"#, #"(?<a>(ab|a)(bc|c)?)d"#, #"\[(?<a>[0-9]+)\]"#,
    ]

    private static let texts = [
        "/acme/product", "/acme/product/raw/x", "/acme/product.git", "/acme/products", "/acme/", "/mozilla-unified",
        "/releases/mozilla-esr115/file", "/releases/mozilla-esr/", "/o/scriptworker-scripts", "/o/scriptworker.git/",
        "/api/queue/v1/task/abc/artifacts/public/a b.zip", "/api/queue/v1/task/abc/runs/12/artifacts/",
        "/api/queue/v1/task/a/b/artifacts/x", "xyz", "xxyyz", "aaaa", "a", "", "b", "bcb", "cc", "a.b-c-d", "-",
        "me@example.com",
        "abcd", "abcbcd", "[17]", "c", "ac", "é/acme/product", "a\nb",
    ]

    @Test func `plain expressions say what the general engine says`() throws {
        for expression in Self.declared {
            let plain = try #require(PlainExpression(expression), "\(expression) is plain")
            for text in Self.texts {
                var expected: [String: String]?
                if let match = try Regex(expression).matchingSemantics(.unicodeScalar).firstMatch(in: text) {
                    expected = [:]
                    for index in match.output.indices {
                        guard let name = match.output[index].name, let value = match.output[index].substring else {
                            continue
                        }
                        expected?[name] = String(value)
                    }
                }
                switch plain.outcome(for: text) {
                case .match(let groups): #expect(groups == expected, "\(expression) \(text)")
                case .noMatch: #expect(expected == nil, "\(expression) \(text)")
                case .notPlain: #expect(!text.utf8.allSatisfy { (0x20...0x7e).contains($0) })
                }
                #expect(PathPattern(expression)?.groups(in: text) == expected, "\(expression) \(text)")
            }
        }
    }

    @Test(arguments: [
        "(a", "a)", "*a", "a**", "a{2}", "(a*)*", "[a", "[a&&b]", "[[:alpha:]]", "(?=a)", "(?i)a", #"\b"#, #"\1"#,
        #"\s"#, "é", "[b-a]",
        "a++", "(?P<n>a",
    ])
    func `other expressions are left to the general engine`(_ expression: String) {
        #expect(PlainExpression(expression) == nil)
    }

    @Test(arguments: [
        ("public/a.zip", true), ("a", true), ("a.b/c..d", false), ("a/../b", false), ("../a", false), ("a/..", false),
        ("./a", false),
        ("a/./b", false), ("a/.", false), (".a/.b", true), ("a//b", false), ("/a", false), ("a/", false), ("", false),
        (".", false),
        ("a\\b", false), ("a\nb", false), ("é", false), ("a/%2e%2e/b", false), ("a%2fb", true), ("a%2f%2e/b", false),
        ("a%5cb", false), ("a%00b", false), ("a%20b", true), ("100%", true),
    ])
    func `a path is safe when it stays below its directory however it is decoded`(_ path: String, _ isSafe: Bool) {
        #expect(TaskPayload.isSafe(path) == isSafe)
    }
}
