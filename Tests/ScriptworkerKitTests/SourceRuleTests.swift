// SPDX-License-Identifier: MPL-2.0

import Expressions
import JSON
import Testing
import WorkerKit

@testable import ScriptworkerKit

struct SourceRuleTests {
    private static func rule(_ expressions: String..., hosts: Set<String> = ["github.com"]) throws -> URLRule {
        URLRule(schemes: ["https"], hosts: hosts, patterns: try expressions.map { try RegularExpression($0) })
    }

    @Test(
        arguments: [
            ("https://github.com/acme/product", "/acme/product"),
            ("https://github.com/acme/product.git", "/acme/product"),
            ("https://github.com/acme/glean/raw/0123/a.yml?x#y", "/acme/glean"),
            ("HTTPS://github.com/acme/product", "/acme/product"),
            ("https://github.com/%61cme/product", "/acme/product"),
            ("https://github.com/acme/products", nil), ("https://github.com/acme/productXgit", nil),
            ("https://github.com/acme/product%0A", nil), ("https://github.com/x/acme/product", nil),
            ("https://github.com:443/acme/product", nil), ("https://me@github.com/acme/product", nil),
            ("https://github.com.example.com/acme/product", nil), ("http://github.com/acme/product", nil),
        ] as [(String, String?)]
    )
    func `a rule knows a repository by scheme, host and path`(_ url: String, _ expected: String?) throws {
        let rule = try Self.rule(#"^(?P<path>/acme/(?:product|glean))(/|\.git|$)"#)
        #expect(try rule.groups(of: try #require(SourceURL(url)))?["path"] == expected)
    }

    @Test func `the first expression that matches decides`() throws {
        let rule = try Self.rule("^/never$", "^(?P<path>/a/[^/]+)(?P<more>/x)?", "^(?P<path>/a)")
        let url = try #require(SourceURL("https://github.com/a/b"))
        #expect(try rule.groups(of: url) == ["path": "/a/b"])
    }

    @Test(
        arguments: [
            ("/api/queue/v1/task/t/artifacts/public/a.zip", true),
            ("/api/queue/v1/task/t/runs/0/artifacts/public/a.zip", true),
            ("/api/queue/v1/task/u/artifacts/public/a.zip", false),
            ("/api/queue/v1/task/t/artifacts/public/%2e%2e/a", false),
            ("/api/queue/v1/task/t/artifacts/", false), ("/api/queue/v1/task/t/artefacts/a", false),
        ]
    )
    func `an artifact is fetched from where the rules say and nowhere else`(_ path: String, _ isAllowed: Bool) throws {
        let expression = #"^/api/queue/v1/task/(?P<taskId>[^/]+)(/runs/\d+)?/artifacts/(?P<filepath>.*)$"#
        let rules = [try Self.rule(expression, hosts: ["tc.example.com"])]
        #expect(try rules.allow("https://tc.example.com\(path)", "t") == isAllowed)
        #expect(try !rules.allow("https://other.example.com\(path)", "t"))
        #expect(try ![URLRule]().allow("https://tc.example.com\(path)", "t"))
    }

    /// Goes back over every way of cutting a path of letters and slashes into pieces.
    private static let endless = "^(?P<path>(?P<filepath>(?:[a-z/]+)+)+)[!?]$"

    @Test func `a path that a rule takes too long for is refused and not left to the next rule`() throws {
        let path = "/" + String(repeating: "a", count: 60)
        let rules = [try Self.rule(Self.endless), try Self.rule("^(?P<path>(?P<filepath>.*))$")]
        let url = try #require(SourceURL("https://github.com\(path)"))
        #expect(throws: RegularExpression.Undecided.self) { try rules[0].groups(of: url) }
        #expect(throws: RegularExpression.Undecided.self) { try rules.allow(url.text, "t") }
    }

    @Test func `a chain that a rule takes too long for is refused with the reason`() async throws {
        let graph = try ReleaseGraph()
        graph.announce()
        try graph.attest()
        try await graph.verify()
        let endless = try Self.rule(Self.endless)
        let problem = try await #require(throws: ChainProblem.self) {
            try await graph.verify { $0.sourceRules.insert(endless, at: 0) }
        }
        #expect(problem.code == .malformedPayload)
        #expect(problem.lines.allSatisfy { $0.contains("trusted_vcs_rules cannot tell whether /\(Self.endless)/") })
    }

    @Test func `wrong expressions of a configuration are told`() {
        let wrong: JSONValue = [
            "schemes": ["https"], "netlocs": ["example.com"], "path_regexes": ["^(?P<path>/a", "^/<path>"],
        ]
        let document: JSONValue = [
            "trusted_vcs_rules": [wrong], "vcs_file_url_templates": [["match": "*", "url": "https://example.com"]],
        ]
        var file = ConfigurationFile(document, path: "test", environment: [:])
        _ = ChainPolicy(&file)
        // The reason and the place come from the library, and change with its version.
        for expected in [
            "trusted_vcs_rules: ^(?P<path>/a is not a regular expression: ",
            "trusted_vcs_rules: ^/<path> lacks the group path",
            "vcs_file_url_templates: * is not a regular expression: ",
        ] {
            #expect(file.problems.contains { $0.hasPrefix(expected) }, "\(expected) in \(file.problems)")
        }
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
