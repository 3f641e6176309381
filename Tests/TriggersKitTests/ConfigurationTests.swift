// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import JSONSchema
import Testing

@testable import TriggersKit

struct ConfigurationTests {
    private func configuration(_ text: String) throws -> TriggersConfiguration {
        try TriggersConfiguration(
            Array(text.utf8),
            schema: SchemaStore.locate().schema("triggers", "v1/configuration.json"),
            secrets: .init(
                environment: { ["TOKEN": "api-token"][$0] },
                file: { ["/run/secret": "shown\n", "/run/empty": "\n"][$0] }
            )
        )
    }

    private func problems(_ text: String) throws -> [String] {
        do {
            _ = try configuration(text)
            return []
        } catch let error as TriggersConfigurationError {
            return error.problems
        }
    }

    @Test func `a whole configuration is read`() throws {
        let read = try configuration(
            """
            {
              "triggers": [
                {"type": "static-analysis-mozreview", "hookGroupId": "g", "hookId": "h"},
                {"type": "static-analysis-phabricator", "hookGroupId": "g", "hookId": "a/b"},
                {"type": "code-coverage", "hookGroupId": "g", "hookId": "c"},
                {"type": "code-coverage", "name": "try", "hookGroupId": "g", "hookId": "c", "routingKey": "#",
                 "repositories": ["https://hg.mozilla.org/try"]},
                {"type": "risk-assessment", "reviewers": ["ana"]}
              ],
              "phabricator": {
                "url": "https://phabricator.example/", "token": {"environment": "TOKEN"}, "tries": 3, "pause": "1s",
                "webhook": {"secrets": [{"file": "/run/secret"}]}
              },
              "report": {"to": ["ops@example.com"]}
            }
            """
        )
        #expect(
            read.triggers.map(\.name) == [
                "static-analysis-mozreview", "static-analysis-phabricator", "code-coverage", "try", "risk-assessment",
            ]
        )
        #expect(read.triggers.last?.hook.description == "project-relman/bugbug-classify-patch")
        #expect(read.phabricator?.url == "https://phabricator.example")
        #expect(read.phabricator?.interval == .seconds(60))
        #expect(read.phabricator?.visibility.tries == 3)
        #expect(read.phabricator?.webhookSecrets.first?.matches(Array("shown".utf8)) == true)
        #expect(read.report?.interval == .seconds(7 * 3600))
        guard case .coverage(let usual) = read.triggers[2].source, case .coverage(let other) = read.triggers[3].source
        else { return #expect(Bool(false), "these are about coverage") }
        #expect(usual.routingKey == "*.*.gecko-level-3._")
        #expect(usual.repositories == ["https://hg.mozilla.org/mozilla-central"])
        #expect(other.routingKey == "#")
        #expect(other.repositories == ["https://hg.mozilla.org/try"])
    }

    @Test func `an empty list refuses to start and says what to do`() throws {
        let problems = try problems(#"{"triggers": []}"#)
        #expect(problems.count == 1)
        #expect(problems.first?.contains("list one at least, or do without TRIGGERS_CONFIG") == true)
        #expect(try !self.problems("{}").isEmpty)
    }

    @Test func `an unknown type refuses to start and names those that are known`() throws {
        let problems = try problems(#"{"triggers": [{"type": "code-covrage"}, {"type": "shipit-step"}]}"#)
        #expect(problems.count == 2)
        #expect(problems.first?.contains("code-covrage; the types are static-analysis-mozreview, ") == true)
        #expect(problems.last?.contains("take it away") == true)
    }

    @Test(arguments: [
        (#"{"triggers": [{"type": "code-coverage"}]}"#, "give it hookGroupId and hookId"),
        (
            #"{"triggers": [{"type": "static-analysis-phabricator", "hookGroupId": "g", "hookId": "h"}]}"#,
            "phabricator is missing"
        ),
        (
            #"{"triggers": [{"type": "code-coverage", "hookGroupId": "g", "hookId": "h", "reviewers": ["a"]}]}"#,
            "triggers/0/reviewers means nothing for code-coverage"
        ),
        (
            #"{"triggers": [{"type": "code-coverage", "hookGroupId": "g", "hookId": "h"}, {"type": "code-coverage", "hookGroupId": "g", "hookId": "i"}]}"#,
            "give it a name"
        ),
        (
            #"{"triggers": [{"type": "risk-assessment"}], "phabricator": {"url": "https://p", "token": {"environment": "NONE"}}}"#,
            "the environment variable NONE is not set"
        ),
        (
            #"{"triggers": [{"type": "risk-assessment"}], "phabricator": {"url": "https://p", "token": {"file": "/run/empty"}}}"#,
            "triggers/0/reviewers is missing"
        ),
        (
            #"{"triggers": [{"type": "code-coverage", "hookGroupId": "g", "hookId": "h"}], "report": {"to": ["a@b"], "interval": "900d"}}"#,
            "report/interval must be a length of time"
        ),
        (
            #"{"triggers": [{"type": "risk-assessment", "reviewers": ["a"]}], "phabricator": {"url": "https://user@p", "token": {"environment": "TOKEN"}}}"#,
            "configuration/phabricator/url"
        ),
        (#"{"triggers": ["#, "line 1"),
    ])
    func `what is wrong is told`(_ text: String, _ expected: String) throws {
        let problems = try problems(text)
        #expect(problems.contains { $0.contains(expected) }, "\(problems)")
    }
}
