// SPDX-License-Identifier: MPL-2.0

import JSON
import Testing
import WorkerKit
import YAMLReader

@testable import ScriptworkerKit

struct RulesTests {
    @Test(
        arguments: [
            (0, TaskResolution.completed), (1, .failed), (2, .exception("worker-shutdown")),
            (3, .exception("malformed-payload")), (4, .exception("resource-unavailable")),
            (5, .exception("internal-error")), (7, .exception("intermittent-task")), (8, .failed), (42, .failed),
            (241, .exception("intermittent-task")), (245, .exception("intermittent-task")), (255, .failed),
        ] as [(Int32, TaskResolution)]
    )
    func `S19: every exit code has its resolution`(_ code: Int32, _ expected: TaskResolution) {
        let reversed: [Int32: String] = [241: "intermittent-task", 245: "intermittent-task"]
        #expect(ResolutionCode(code).resolution(reversed: reversed) == expected)
    }

    @Test(
        arguments: [
            [:], ["payload": 1], ["payload": ["maxRunTime": "600"]], ["payload": ["maxRunTime": 0]],
            ["payload": ["upstreamArtifacts": [["taskId": "../../x", "paths": []]]]],
            ["payload": ["upstreamArtifacts": [["taskId": "AAAAAAAAR4CAAAAAAAAAAA", "paths": ["public/../x"]]]]],
            ["payload": ["upstreamArtifacts": [["taskId": "AAAAAAAAR4CAAAAAAAAAAA", "paths": ["/etc/passwd"]]]]],
            ["payload": ["upstreamArtifacts": [["taskId": "AAAAAAAAR4CAAAAAAAAAAA", "paths": ["public/*"]]]]],
            ["payload": ["upstreamArtifacts": [["taskId": "AAAAAAAAR4CAAAAAAAAAAA", "paths": ["a/%2e%2e/x"]]]]],
        ] as [JSONValue]
    )
    func `S34: a payload that cannot be trusted is malformed`(_ task: JSONValue) {
        #expect(throws: TaskPayload.Problem.self) { try TaskPayload(task: task) }
    }

    @Test func `S45: signals add up and repeating one does nothing more`() {
        var state = StopState()
        #expect(state.received(.drain) == .drain)
        #expect(state.received(.drain) == nil)
        #expect(state.received(.terminate) == .stop)
        #expect(state.received(.terminate) == .abandon)
        #expect(state.received(.terminate) == nil)
        #expect(state.received(.reload) == .reload)
    }

    @Test(
        arguments: [
            ("public/*.zip", "public/a/b.zip", true), ("public/*", "public/.h", true),
            ("public/a.zip", "public/A.zip", false), ("a[0-9]?", "a5x", true), ("a[!0-9]", "a5", false),
        ] as [(String, String, Bool)]
    )
    func `a pattern matches as upstream's does`(_ pattern: String, _ name: String, _ expected: Bool) {
        #expect(FileNamePattern(pattern).matches(name) == expected)
    }

    @Test func `S1: every problem of a configuration is told`() throws {
        let document = try YAML.value(
            of: "task_script: echo\nwork_dir: ...\nwibble: 1\nlog_dir: /l\nartifact_dir: /a\n"
        )
        let file = ConfigurationFile(document, path: "x.yaml", environment: [:])
        for word in ["wibble", "task_script", "work_dir"] {
            #expect(file.problems.contains { $0.contains(word) })
        }
    }

    @Test func `S5: a number written as text is taken with a warning`() throws {
        let document = try YAML.value(of: "task_max_timeout: \"1200\"")
        let file = ConfigurationFile(document, path: "x.yaml", environment: [:])
        #expect(file.seconds("task_max_timeout") == .seconds(1200))
        #expect(file.warnings.count == 1)
    }

    @Test func `S89: what gives access is cut out of a logged URL`() {
        #expect(URLMask.masked("PUT https://h/p?a=1&bewit=zzz&b=2 now") == "PUT https://h/p?a=1&<snip> now")
        #expect(
            LogFormat.line("%(levelname)8s - %(message)s", ["levelname": "INFO", "message": "x"]) == "    INFO - x"
        )
    }
}
