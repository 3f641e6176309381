// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepTestSupport
import Taskcluster
import Testing
import TestSupport

@testable import TaskclusterStepKit

/// Steps that make tasks: once, whatever happens.
@Suite(.timeLimit(.minutes(15)))
struct TriggerTests {
    private static let hook: JSONValue = ["hook": ["hookGroupId": "g", "hookId": "h", "payload": ["version": "1"]]]

    /// The task that a step has made.
    private func task(_ world: TaskclusterWorld, _ uid: String) async throws -> String {
        try #require(try await world.status(uid)["info"]?["task_id"]?.string)
    }

    @Test func `71: a hook is triggered once, and its task is waited for before the group`() async throws {
        try await TaskclusterWorld.with { world in
            try await world.create("s", Self.hook)
            try await world.advance(3)
            #expect(world.queue.count("trigger") == 1)
            let task = try await task(world, "s")
            let sent = world.queue.state.withLock { $0.tasks[task]?.task }
            #expect(sent?["version"] == "1")
            #expect(sent?["taskId"] == .string(task))
            #expect(try await world.state("s") == "running")
            world.queue.set(task, "completed")
            let child = world.queue.add(task, "running")
            try await world.advance(60, every: 5)
            #expect(try await world.state("s") == "running")
            world.queue.set(child, "completed")
            try await world.advance(120, every: 5)
            let status = try await world.status("s")
            #expect(status["state"] == "completed")
            #expect(status["output"]?["task_group_id"] == .string(task))
            #expect(world.queue.count("trigger") == 1)
        }
    }

    @Test(arguments: [true, false])
    func `71: a trigger whose answer is lost has fired once`(_ namesTasks: Bool) async throws {
        try await TaskclusterWorld.with(hooksNameTasks: namesTasks) { world in
            world.queue.change { state in
                state.lostAnswers = 1
                state.namesTasks = namesTasks
            }
            try await world.create("s", Self.hook)
            try await world.advance(30, every: 5)
            #expect(world.queue.count("fire") == 1)
            let task = try await task(world, "s")
            #expect(world.queue.state.withLock { $0.fires.map(\.id) } == [task])
            world.queue.set(task, "completed")
            try await world.advance(120, every: 5)
            #expect(try await world.state("s") == "completed")
            #expect(world.queue.count("fire") == 1)
        }
    }

    @Test func `71: a process that dies between the intent and its note of the task leaves a step that goes on`()
        async throws
    {
        try await TaskclusterWorld.with(replicas: 2, lease: .milliseconds(200)) { world in
            try await world.create("s", Self.hook)
            let dying = world.replicas[0].service
            world.clock.advance(by: .seconds(1))
            let claim = try #require(
                try await dying.store.claim(limit: 1, owner: "dying", lease: .milliseconds(200)).first
            )
            let run = try #require(try await dying.runs.run(claim.step.id))
            let id = try #require(run.taskID)
            let look = TaskclusterService.Look(
                claim: claim,
                definition: try dying.definition(of: claim.step),
                run: run
            )
            // It stores what it is about to do, the hook fires, and nothing more is heard of it.
            let payload: JSONValue = ["taskId": .string(id), "version": "1"]
            _ = try await dying.note(look) { change, run in
                run.intended = change.now
                run.intent = ["hookGroupId": "g", "hookId": "h", "payload": payload, "names_task": true]
            }
            _ = try await dying.client.hooks.triggerHook("g", "h", payload: payload)
            // Its lease ends by the database's clock.
            try await eventually(within: .seconds(60), "the other has found the task") {
                try await world.advance(1, replica: 1)
                return try await world.state("s") == "running"
            }
            #expect(world.queue.count("fire") == 1)
            #expect(world.queue.count("trigger") == 1)
            #expect(try await task(world, "s") == id)
            // What the dead one writes late is refused.
            try await dying.settle(look) { change, _ in change.move(to: .exception, message: "late") }
            #expect(try await world.state("s") == "running")
        }
    }

    @Test func `71: where nobody can tell whether a hook has fired, a person decides`() async throws {
        try await TaskclusterWorld.with(hooksNameTasks: false) { world in
            // A hook of a service that keeps no track of it, and lets no names pass.
            world.queue.change { state in
                state.namesTasks = false
                state.hookSchema = [
                    "type": "object", "properties": ["version": [:]], "additionalProperties": false,
                ]
                state.lostAnswers = 1
            }
            try await world.create("s", Self.hook)
            try await world.advance(120, every: 5)
            let status = try await world.status("s")
            #expect(status["state"] == "exception")
            #expect(status["message"]?.string?.hasPrefix("ambiguous trigger") == true)
            #expect(world.queue.count("trigger") == 1)
            let fired = try #require(world.queue.state.withLock { $0.fires.first?.id })
            let body: JSONValue = ["taskId": .string(fired), "reason": "it is the only one"]
            let refused = try await world.servers.call(
                "POST",
                "/s/resolve",
                body,
                as: "op project:releng:services/shipit_taskcluster/view"
            )
            #expect(refused.status == 403)
            #expect(try await world.servers.call("POST", "/s/resolve", body).status == 200)
            world.queue.set(fired, "completed")
            try await world.advance(120, every: 5)
            #expect(try await world.state("s") == "completed")
            #expect(try await world.kinds("s").contains("resolved"))
        }
    }

    @Test func `a trigger that never left is sent again, one that is refused is not`() async throws {
        try await TaskclusterWorld.with { world in
            world.queue.change { $0.triggerStatuses = [403, 401] }
            try await world.create("s", Self.hook)
            try await world.advance(30, every: 5)
            #expect(world.queue.count("fire") == 1)
            #expect(try await world.state("s") == "running")
            world.queue.change { $0.triggerStatuses = [400] }
            try await world.create("bad", Self.hook)
            try await world.advance(30, every: 5)
            #expect(try await world.state("bad") == "exception")
            #expect(world.queue.count("fire") == 1)
        }
    }

    @Test func `a service that fails while it fires is asked what it has done`() async throws {
        try await TaskclusterWorld.with { world in
            world.queue.change { $0.triggerStatuses = [500, 502] }
            try await world.create("s", Self.hook)
            try await world.advance(60, every: 5)
            #expect(try await world.state("s") == "running")
            #expect(world.queue.count("fire") == 1)
        }
    }

    @Test func `a task is created under the id that was chosen for it`() async throws {
        try await TaskclusterWorld.with { world in
            let id = Slugid.make()
            try await world.create("s", ["task": ["taskQueueId": "a/b", "payload": [:]], "taskId": .string(id)])
            world.queue.change { $0.outage = 500 }
            try await world.advance(10, every: 5)
            world.queue.change { $0.outage = nil }
            try await world.advance(30, every: 5)
            #expect(try await task(world, "s") == id)
            #expect(world.queue.count("create \(id)") == 1)
            let stored = world.queue.state.withLock { $0.tasks[id]?.task }
            #expect(stored?["created"]?.string != nil)
            world.queue.set(id, "failed")
            try await world.advance(60, every: 5)
            #expect(try await world.state("s") == "failed")
            // Somebody else's task of that id is not ours.
            let taken = world.queue.add(Slugid.make(), "running")
            try await world.create("t", ["task": ["taskQueueId": "a/b"], "taskId": .string(taken)])
            try await world.advance(10, every: 5)
            #expect(try await world.state("t") == "exception")
        }
    }

    @Test func `an action is rendered with the parameters of its group and triggered once`() async throws {
        try await TaskclusterWorld.with { world in
            let decision = Slugid.make()
            world.queue.add(decision, "completed", id: decision)
            let actions: JSONValue = [
                "version": 1, "variables": ["extra": "kept"],
                "actions": [
                    ["name": "ship", "kind": "task", "context": [["kind": "x"]]],
                    [
                        "name": "ship", "kind": "hook", "context": [], "hookGroupId": "g", "hookId": "ship",
                        "hookPayload": [
                            "group": "${taskGroupId}", "head": "${parameters.head_rev}", "input": ["$eval": "input"],
                            "extra": "${extra}",
                        ],
                    ],
                ],
            ]
            world.queue.change { state in
                state.artifacts["\(decision) public/actions.json"] = actions.text()
                state.artifacts["\(decision) public/parameters.yml"] = "head_rev: abc\nlevel: '3'\n"
            }
            let body: JSONValue = [
                "action": ["taskGroupId": .string(decision), "name": "ship", "input": ["phase": "promote"]]
            ]
            try await world.create("s", body)
            try await world.advance(10, every: 5)
            #expect(world.queue.log.filter { $0.hasPrefix("fire") } == ["fire g/ship"])
            let sent = try #require(
                world.queue.state.withLock { state in
                    state.fires.first.flatMap { state.tasks[$0.id]?.task }
                }
            )
            #expect(sent["group"] == .string(decision))
            #expect(sent["head"] == "abc")
            #expect(sent["input"] == ["phase": "promote"])
            #expect(sent["extra"] == "kept")
            try await world.create("none", ["action": ["taskGroupId": .string(decision), "name": "sail"]])
            try await world.advance(10, every: 5)
            #expect(try await world.state("none") == "exception")
        }
    }

    @Test func `72: what a step has made is cancelled in order, what it only follows is left alone`() async throws {
        try await TaskclusterWorld.with { world in
            try await world.create("made", Self.hook)
            try await world.advance(3)
            let task = try await task(world, "made")
            world.queue.add(task, "running")
            let actions: JSONValue = [
                "actions": [
                    ["name": "cancel-all", "kind": "hook", "hookGroupId": "g", "hookId": "cancel", "hookPayload": [:]]
                ]
            ]
            world.queue.change { state in
                state.artifacts["\(task) public/actions.json"] = actions.text()
                state.artifacts["\(task) public/parameters.yml"] = "{}"
            }
            let before = world.queue.log.count
            let answer = try await world.servers.call("POST", "/made/cancel", ["reason": "a mistake"])
            #expect(answer.body["state"] == "stopping")
            try await world.advance(10, every: 5)
            let done = world.queue.log.dropFirst(before)
            #expect(
                done.filter { !$0.hasPrefix("fire") }
                    == ["cancelTask \(task)", "trigger g/cancel", "seal \(task)", "cancel \(task)"]
            )
            #expect(try await world.state("made") == "cancelled")
            #expect(try await world.status("made")["message"] == "a mistake")

            let group = Slugid.make()
            world.queue.add(group, "running")
            try await world.create("followed", ["taskGroupId": .string(group)])
            try await world.advance(3)
            let calls = world.queue.log.count
            #expect(try await world.servers.call("POST", "/followed/cancel").body["state"] == "cancelled")
            try await world.advance(10, every: 5)
            #expect(world.queue.log.count == calls)
        }
    }

    @Test func `72: a queue that is away holds up the cancelling, and a process that dies in it repeats no trigger`()
        async throws
    {
        try await TaskclusterWorld.with { world in
            try await world.create("s", Self.hook)
            try await world.advance(3)
            let task = try await task(world, "s")
            world.queue.change { $0.outage = 503 }
            #expect(try await world.servers.call("POST", "/s/cancel").status == 200)
            try await world.advance(30, every: 5)
            #expect(try await world.state("s") == "stopping")
            world.queue.change { $0.outage = nil }
            try await world.advance(90, every: 5)
            #expect(try await world.state("s") == "cancelled")
            #expect(world.queue.count("seal \(task)") == 1)
            #expect(world.queue.count("fire") == 1)
        }
    }

    @Test func `a task that joined the group of others takes nobody with it`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            world.queue.add(group, "running")
            try await world.create("s", ["task": ["taskQueueId": "a/b", "taskGroupId": .string(group)]])
            try await world.advance(3)
            #expect(try await world.servers.call("POST", "/s/cancel").status == 200)
            try await world.advance(10, every: 5)
            #expect(try await world.state("s") == "cancelled")
            #expect(world.queue.count("cancelTask") == 1)
            #expect(world.queue.count("seal") == 0)
            #expect(world.queue.count("cancel \(group)") == 0)
        }
    }
}
