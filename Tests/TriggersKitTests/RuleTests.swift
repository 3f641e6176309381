// SPDX-License-Identifier: MPL-2.0

import HooksKit
import JSON
import Testing

@testable import TriggersKit

struct RuleTests {
    private static let commits: JSONValue = [
        "payload": [
            "repository_url": "https://review.example/gecko",
            "commits": [
                [
                    "rev": "308c22e7899048467002de4ffb126cac0875c994", "review_request_id": 164530,
                    "diffset_revision": 7,
                ],
                [
                    "rev": "b0e28ab2c1b4a1b9d3e5c8b9a1f9d0c2b3a4d5e6", "review_request_id": 164531,
                    "diffset_revision": 1,
                ],
            ],
        ]
    ]

    private func read(_ message: JSONValue) throws(MessageReading.Problem) -> [Sighting] {
        try MessageReading.sightings(
            message.bytes(),
            for: .mozReview(repositoryURL: "https://review.example/gecko")
        )
    }

    @Test func `every commit of a published series is a sighting of its own`() throws {
        let sightings = try read(Self.commits)
        #expect(
            sightings.map(\.subject) == [
                "308c22e7899048467002de4ffb126cac0875c994/164530/7",
                "b0e28ab2c1b4a1b9d3e5c8b9a1f9d0c2b3a4d5e6/164531/1",
            ]
        )
    }

    @Test func `commits of another repository are nobody's business`() throws {
        var message = Self.commits
        message["payload"]?["repository_url"] = "https://review.example/nss"
        #expect(try read(message).isEmpty)
    }

    @Test(arguments: [
        #"{}"#, #"{"payload": {}}"#, #"[]"#, #"{"payload": {"repository_url": "https://review.example/gecko"}}"#,
        #"{"payload": {"repository_url": "https://review.example/gecko", "commits": []}}"#,
        #"{"payload": {"repository_url": "https://review.example/gecko", "commits": [{"rev": "no hash"}]}}"#,
        #"{"payload": {"repository_url": "https://review.example/gecko", "commits": [{"rev": "ab"}]}}"#, "\u{0}", "",
    ])
    func `a message that does not say what it should is a problem`(_ text: String) {
        #expect(throws: MessageReading.Problem.self) {
            try MessageReading.sightings(
                Array(text.utf8),
                for: .mozReview(repositoryURL: "https://review.example/gecko")
            )
        }
    }

    @Test func `a resolved group is known by its id`() throws {
        let id = "fUcGNXd7Q5S8LTPwG8cmFw"
        let body = JSONValue.object(["taskGroupId": .string(id), "schedulerId": "gecko-level-3"]).bytes()
        let sightings = try MessageReading.sightings(body, for: .coverage(CoverageRule()))
        #expect(sightings == [Sighting(subject: id, facts: .group(id), origin: .message)])
        #expect(throws: MessageReading.Problem.self) {
            try MessageReading.sightings(Array(#"{"taskGroupId": "x"}"#.utf8), for: .coverage(CoverageRule()))
        }
    }

    @Test func `facts are read as they were stored`() {
        let diff = Facts.Diff(id: 7, phid: "PHID-DIFF-a", revisionPHID: "PHID-DREV-b", revisionID: 3)
        for facts in [
            Facts.commit(revision: "ab", review: 1, diffset: 2), .group("g"), .diff(diff), .diff(.init(id: 1)),
        ] {
            #expect(Facts(facts.json) == facts)
        }
        #expect(Facts(["something": "else"]) == nil)
    }

    private static func build(_ environment: JSONValue?) -> JSONValue {
        var payload: JSONObject = [:]
        payload["env"] = environment
        return ["task": ["metadata": ["name": "build-linux64-ccov/debug"], "payload": .object(payload)]]
    }

    @Test func `a build of another repository, or one that does not name it, uploads nothing`() {
        let rule = CoverageRule()
        let central = "https://hg.mozilla.org/mozilla-central"
        #expect(CoverageBuild.verdict(Self.build(nil), rule) == .skip("the build has no GECKO_HEAD_REPOSITORY"))
        #expect(CoverageBuild.verdict(Self.build([]), rule) == .skip("the build has no GECKO_HEAD_REPOSITORY"))
        let other: JSONValue = ["GECKO_HEAD_REPOSITORY": "https://hg.mozilla.org/try", "GECKO_HEAD_REV": "ab"]
        #expect(CoverageBuild.verdict(Self.build(other), rule) == .skip("the build is of https://hg.mozilla.org/try"))
        let without: JSONValue = ["GECKO_HEAD_REPOSITORY": .string(central)]
        #expect(CoverageBuild.verdict(Self.build(without), rule) == .skip("the build has no GECKO_HEAD_REV"))
        let good: JSONValue = ["GECKO_HEAD_REPOSITORY": .string(central), "GECKO_HEAD_REV": "ab"]
        #expect(CoverageBuild.verdict(Self.build(good), rule) == .upload(repository: central, revision: "ab"))
    }

    @Test(arguments: ["build-linux64-ccov/opt", "build-win64-ccov/debug", "build-linux64-ccov"])
    func `builds are known by how their names begin`(_ name: String) {
        #expect(CoverageBuild.matches(["task": ["metadata": ["name": .string(name)]]], CoverageRule()))
    }

    @Test(arguments: ["test-linux64-ccov/opt", "build-linux64/debug", ""])
    func `other tasks are not`(_ name: String) {
        #expect(!CoverageBuild.matches(["task": ["metadata": ["name": .string(name)]]], CoverageRule()))
        #expect(!CoverageBuild.matches([:], CoverageRule()))
    }

    @Test func `an announced build names its diff, repository, revision and target`() throws {
        let options = ["diff": "1234", "repo": "PHID-REPO-x", "revision": "56", "target": "PHID-HMBT-y"]
        let diff = try BuildRequest.diff { options[$0] }
        #expect(diff == .init(id: 1234, revisionID: 56, repositoryPHID: "PHID-REPO-x", targetPHID: "PHID-HMBT-y"))
        let wrong = [
            ("diff", "0"), ("diff", "-1"), ("diff", "12a"), ("diff", ""), ("diff", "99999999999999999999"),
            ("repo", ""),
            ("repo", "PHID-HMBT-y"), ("revision", "x"), ("target", "PHID-REPO-x"), ("target", "PHID-HMBT-"),
            ("target", "PHID-HMBT-a b"), ("target", "PHID-HMBT-" + String(repeating: "a", count: 100)),
        ]
        for (name, value) in wrong {
            #expect(throws: BuildRequest.Problem.self) { try BuildRequest.diff { $0 == name ? value : options[$0] } }
            #expect(throws: BuildRequest.Problem.self) { try BuildRequest.diff { $0 == name ? nil : options[$0] } }
        }
    }

    @Test func `a report tells shares for hooks with tasks that did not complete, and leaves the others out`() {
        let bad = HookName(group: "project", hook: "bad")
        let good = HookName(group: "project", hook: "good")
        let endings = [
            Report.Ending(hook: bad, taskID: "one", state: "completed"),
            Report.Ending(hook: bad, taskID: "two", state: "completed"),
            Report.Ending(hook: bad, taskID: "three", state: "failed"),
            Report.Ending(hook: good, taskID: "four", state: "completed"),
        ]
        let report = Report(endings: endings, stuck: 0, letters: 0)
        let text = report.text(rootURL: "https://tc.example")
        #expect(!report.isQuiet)
        #expect(text.contains("# project/bad"))
        #expect(text.contains("completed: 66.67% (2/3)"))
        #expect(text.contains("failed: 33.33% (1/3)\n\n* [three](https://tc.example/tasks/three)"))
        #expect(text.contains("exception: 0.00% (0/3)"))
        #expect(!text.contains("project/good"))
        #expect(Report(endings: [endings[3]], stuck: 0, letters: 0).isQuiet)
        #expect(Report(endings: [], stuck: 0, letters: 0).isQuiet)
        #expect(!Report(endings: [], stuck: 1, letters: 0).isQuiet)
        #expect(!Report(endings: [], stuck: 0, letters: 1).isQuiet)
        let left = Report(endings: [], stuck: 0, letters: 0, leftovers: ["coverage-of-try"])
        #expect(!left.isQuiet)
        #expect(left.text(rootURL: "").contains("coverage-of-try"))
    }
}
