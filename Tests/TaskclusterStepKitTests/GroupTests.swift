// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepTestSupport
import Taskcluster
import Testing
import TestSupport

@testable import TaskclusterStepKit

/// Steps that follow groups.
@Suite(.timeLimit(.minutes(15)))
struct GroupTests {
    @Test func `64: a failure on the third page of a group is seen`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            for _ in 0..<2299 { world.queue.add(group) }
            world.queue.add(group, "failed", name: "the-last")
            try await world.create("big", ["taskGroupId": .string(group)])
            try await world.advance()
            let status = try await world.status("big")
            #expect(status["state"] == "failed")
            #expect(status["info"]?["counts"] == ["completed": 2299, "failed": 1])
            #expect(status["info"]?["failed"]?[0]?["name"] == "the-last")
            #expect(status["info"]?["task_group_id"] == .string(group))
        }
    }

    @Test func `65: an empty group is waited for, and given up in time`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            world.queue.change { $0.groups[group] = [] }
            try await world.create("empty", ["taskGroupId": .string(group)])
            try await world.create("absent", ["taskGroupId": .string(Slugid.make()), "appear_timeout_s": 100])
            try await world.advance(90, every: 5)
            #expect(try await world.status("empty")["status"] == "in_progress")
            #expect(try await world.state("absent") == "starting")
            try await world.advance(60, every: 5)
            #expect(try await world.state("absent") == "exception")
            try await world.advance(600, every: 30)
            #expect(try await world.state("empty") == "exception")
        }
    }

    @Test func `66: a step goes on while tasks do although one has failed, unless it is to fail at once`()
        async throws
    {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            world.queue.add(group, "failed", name: "the-first")
            let other = world.queue.add(group, "running")
            try await world.create("patient", ["taskGroupId": .string(group)])
            let hasty: JSONValue = ["taskGroupId": .string(group), "group_unique": false, "fail_fast": true]
            try await world.create("hasty", hasty)
            try await world.advance()
            #expect(try await world.status("patient")["status"] == "in_progress")
            #expect(try await world.status("patient")["info"]?["failed"]?[0]?["name"] == "the-first")
            #expect(try await world.status("hasty")["status"] == "failure")
            world.queue.set(other, "completed")
            try await world.advance(60, every: 5)
            #expect(try await world.state("patient") == "failed")
        }
    }

    @Test func `67: what waits for a failed task for ever does not keep a step from failing`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            let first = world.queue.add(group, "running")
            let second = world.queue.add(group, "unscheduled", dependencies: [first])
            world.queue.add(group, "unscheduled", dependencies: [second])
            try await world.create("s", ["taskGroupId": .string(group)])
            try await world.advance()
            #expect(try await world.state("s") == "running")
            world.queue.set(first, "failed")
            try await world.replicas[0].service.heard(group: group, task: first)
            try await world.advance(5)
            let status = try await world.status("s")
            #expect(status["state"] == "failed")
            #expect(status["message"]?.string?.contains("can never run") == true)
        }
    }

    @Test func `68: a step stays as it ended when a task is run again`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            let task = world.queue.add(group)
            try await world.create("done", ["taskGroupId": .string(group)])
            try await world.advance()
            #expect(try await world.state("done") == "completed")
            world.queue.set(task, "running")
            try await world.replicas[0].service.heard(group: group, task: task)
            try await world.advance(600, every: 60)
            #expect(try await world.status("done")["status"] == "success")
            #expect(try await world.kinds("done").count { $0 == "state" } == 2)
        }
    }

    @Test func `69: a group that a user cancels ends the step as cancelled`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            let tasks = (0..<3).map { _ in world.queue.add(group, "running") }
            try await world.create("c", ["taskGroupId": .string(group)])
            try await world.advance()
            #expect(try await world.state("c") == "running")
            for task in tasks { world.queue.set(task, "exception", reason: "canceled") }
            try await world.replicas[0].service.heard(group: group, task: tasks[0])
            try await world.advance(5)
            #expect(try await world.state("c") == "cancelled")
        }
    }

    @Test func `70: one step follows a group, unless they say that more may`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            world.queue.add(group, "running")
            let body: JSONValue = ["taskGroupId": .string(group)]
            try await world.create("one", body)
            let second = try await world.servers.call("PUT", "/two", body)
            #expect(second.status == 409)
            #expect(second.body["error_message"] == "Step with that task_group_id already exists")
            // The same step again is the same step.
            #expect(try await world.servers.call("PUT", "/one", body).status == 200)
            var shared = body
            shared["group_unique"] = false
            #expect(try await world.servers.call("PUT", "/three", shared).status == 200)
            #expect(try await world.servers.call("DELETE", "/one?force=true").status == 200)
            #expect(try await world.servers.call("DELETE", "/three?force=true").status == 200)
            #expect(try await world.servers.call("PUT", "/four", body).status == 200)
        }
    }

    @Test func `70: of many steps that want a group at the same time one gets it`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            let statuses = try await withThrowingTaskGroup(of: Int.self) { tasks in
                for number in 0..<12 {
                    tasks.addTask {
                        try await world.servers.call("PUT", "/r\(number)", ["taskGroupId": .string(group)]).status
                    }
                }
                return try await tasks.reduce(into: []) { $0.append($1) }
            }
            #expect(statuses.sorted() == [200] + Array(repeating: 409, count: 11))
        }
    }

    @Test func `73: the scheduler that was retired is refused, the body of the original is accepted`() async throws {
        try await TaskclusterWorld.with { world in
            let group = JSONValue(Slugid.make())
            let old = try await world.servers.call("PUT", "/old", ["taskGroupId": group, "schedulerAPI": true])
            #expect(old.status == 400)
            let answer = try await world.servers.call(
                "PUT",
                "/steps/plain",
                ["taskGroupId": group, "schedulerAPI": false]
            )
            #expect(answer.status == 200)
            #expect(answer.body == [:])
            try await world.advance()
            #expect(try await world.servers.call("GET", "/steps?state=starting").body == ["plain"])
        }
    }

    @Test func `74: a queue that is away changes nothing but a mark`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            let task = world.queue.add(group, "running")
            try await world.create("s", ["taskGroupId": .string(group)])
            try await world.advance()
            world.queue.change { $0.outage = 503 }
            try await world.advance(300, every: 10)
            let away = try await world.status("s")
            #expect(away["state"] == "running")
            #expect(away["info"]?["stale_since"]?.string != nil)
            #expect(try await world.kinds("s").count { $0 == "unreachable" } == 1)
            world.queue.change { $0.outage = nil }
            world.queue.set(task, "completed")
            try await world.advance(70, every: 10)
            let back = try await world.status("s")
            #expect(back["state"] == "completed")
            #expect(back["info"]?["stale_since"] == nil)
        }
    }

    @Test func `a group that the queue has forgotten is an exception`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            world.queue.add(group, "running")
            try await world.create("s", ["taskGroupId": .string(group)])
            try await world.advance()
            world.queue.change { $0.groups[group] = nil }
            try await world.advance(60, every: 10)
            let status = try await world.status("s")
            #expect(status["state"] == "exception")
            #expect(status["message"]?.string?.hasPrefix("expired") == true)
        }
    }

    @Test func `a failure is taken back within its window when tasks are run again`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            let task = world.queue.add(group, "failed")
            try await world.create("s", ["taskGroupId": .string(group), "reopen_window_s": 600])
            try await world.advance()
            #expect(try await world.state("s") == "failed")
            world.queue.set(task, "running")
            try await world.advance(60, every: 10)
            #expect(try await world.state("s") == "running")
            world.queue.set(task, "completed")
            try await world.advance(60, every: 10)
            #expect(try await world.state("s") == "completed")
        }
    }

    @Test func `what the bus says during a look is not lost`() async throws {
        try await TaskclusterWorld.with { world in
            let group = Slugid.make()
            let task = world.queue.add(group, "running")
            try await world.create("s", ["taskGroupId": .string(group)])
            try await world.advance()
            let service = world.replicas[0].service
            world.clock.advance(by: .seconds(31))
            let claims = try await service.store.claim(limit: 1, owner: "other", lease: .seconds(30))
            let claim = try #require(claims.first)
            let run = try #require(try await service.runs.run(claim.step.id))
            // While a look is under way, the task ends.
            world.queue.set(task, "completed")
            try await service.heard(group: group, task: task)
            let look = TaskclusterService.Look(
                claim: claim,
                definition: try service.definition(of: claim.step),
                run: run
            )
            try await service.settle(look) { change, _ in change.step.nextCheck = change.now + .seconds(300) }
            try await world.advance(5)
            #expect(try await world.state("s") == "completed")
        }
    }
}
