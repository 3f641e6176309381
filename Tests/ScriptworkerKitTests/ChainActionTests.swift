// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Schedules
import Taskcluster
import Testing

@testable import ScriptworkerKit

@Suite(.timeLimit(.minutes(5))) struct ChainActionTests {
    private let graph: ReleaseGraph
    private let action = Slugid.make()

    init() throws {
        graph = try ReleaseGraph()
    }

    /// An action task as its tree would define it; texts of the form `${…}` are the template's, values the task's.
    private func actionTask(callback: String, group: String, context: JSONValue) -> JSONValue {
        var payload = graph.decisionPayload
        payload["command"] = ["taskgraph", "action-callback"]
        payload["env"]?["ACTION_CALLBACK"] = .string(callback)
        payload["env"]?["ACTION_TASK_GROUP_ID"] = .string(group)
        return graph.base("acme-3/decision", payload, ["tasks_for": "action", "action": ["context": context]])
    }

    /// Puts an action between the decision and the task to be run.
    private func arrange(group: String? = nil, callback: String = "retrigger", kind: String = "hook") throws {
        var template = actionTask(
            callback: "${action.cb_name}",
            group: "${action.taskGroupId}",
            context: [
                "input": ["$eval": "input"], "taskId": ["$eval": "taskId"], "taskGroupId": ["$eval": "taskGroupId"],
            ]
        )
        template["created"] = ["$fromNow": ""]
        template["deadline"] = ["$fromNow": "1 hour"]
        template["expires"] = ["$fromNow": "1 day"]
        template["metadata"]?["description"] = "${action.title} by ${action.repo_scope}"
        let decisions = graph.template["tasks"]?.array ?? []
        graph.setTemplate([
            "tasks": ["$if": "tasks_for == 'action'", "then": [template], "else": .array(decisions)]
        ])

        var task = actionTask(
            callback: callback,
            group: group ?? graph.decision,
            context: [
                "input": ["times": 2], "taskId": .string(graph.build), "taskGroupId": .string(graph.decision),
            ]
        )
        task["metadata"]?["description"] = "Retrigger by assume:repo:github.com/acme/product:action:generic"
        let definition = task
        graph.add(action, "acme-3/decision", [:])
        graph.change(action) { $0 = definition }
        let hook: JSONValue = [
            "kind": .string(kind), "name": "retrigger", "hookId": "in-tree-action-3-generic/0123",
            "hookPayload": [
                "decision": [
                    "action": [
                        "name": "retrigger", "title": "Retrigger", "description": "again", "symbol": "rt",
                        "taskGroupId": .string(graph.decision), "cb_name": "retrigger",
                    ],
                    "repository": ["url": .string(ReleaseGraph.repository)], "push": ["revision": "x"],
                    "parameters": [:],
                ],
                "user": [
                    "input": ["$eval": "input"], "taskId": ["$eval": "taskId"],
                    "taskGroupId": ["$eval": "taskGroupId"],
                ],
            ],
        ]
        graph.artifact(graph.decision, "public/actions.json", (["actions": [hook]] as JSONValue).bytes())
        graph.announce()
        let made = graph.state.withLock { $0.definitions[graph.sign] ?? [:] }
        var announced = made
        announced["extra"] = ["parent": .string(action)]
        let sign = announced
        graph.change(graph.sign) { $0 = sign }
        let list: JSONValue = .object(JSONObject([(key: graph.sign, value: ["task": sign] as JSONValue)]))
        graph.artifact(action, "public/task-graph.json", list.bytes())
        try graph.attest()
    }

    private func code() async throws -> Int32 {
        do {
            try await graph.verify()
        } catch let problem as ChainProblem {
            return problem.code.number
        }
        return 0
    }

    @Test func `S82: an action that its decision task announces is good`() async throws {
        try arrange()
        #expect(try await graph.verify().links.map(\.taskID).contains(action))
    }

    @Test func `S82: an action may make a group of its own`() async throws {
        try arrange(group: action)
        #expect(try await code() == 0)
    }

    @Test func `S82: no action may work in a group of somebody else`() async throws {
        try arrange(group: Slugid.make())
        #expect(try await code() == 3)
    }

    @Test(arguments: [("release", "hook"), ("retrigger", "task")])
    func `S82: an action that is not announced, or not as a hook, is refused`(_ callback: String, _ kind: String)
        async throws
    {
        try arrange(callback: callback, kind: kind)
        #expect(try await code() == 3)
    }

    @Test func `S83: a server that asks for patience gets it, within reason`() async throws {
        graph.announce()
        try graph.attest()
        let url = "https://api.github.com/repos/acme/product/contents/.taskcluster.yml?ref=\(ReleaseGraph.revision)"
        func refuse(until reset: Timestamp) {
            let seconds = "\(reset.milliseconds / 1000)"
            graph.page(url, [:], status: 403, headers: ["X-RateLimit-Remaining": "0", "X-RateLimit-Reset": seconds])
        }
        refuse(until: .now() + .seconds(7200))
        #expect(try await code() == 4)
        refuse(until: .now() + .seconds(1))
        async let verdict = code()
        while graph.lines.withLock({ $0.count { $0.contains("too many requests") } }) == 0 {
            try await Task.sleep(for: .milliseconds(10))
        }
        graph.setTemplate(graph.template)
        #expect(try await verdict == 0)
    }
}
