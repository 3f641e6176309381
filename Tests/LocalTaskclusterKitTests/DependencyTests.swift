// SPDX-License-Identifier: MPL-2.0
import JSON
import Schedules
import Taskcluster
import Testing

@testable import LocalTaskclusterKit

@Suite(.timeLimit(.minutes(5)))
struct DependencyTests {
    private func dependent(_ queue: QueueFixture, on ids: [String], _ requires: String = "all-completed") async throws
        -> String
    {
        try await queue.create(
            Slugid.make(),
            ["dependencies": .array(ids.map { .string($0) }), "requires": .string(requires)]
        ).taskID
    }

    @Test func `Q71: a retried exception satisfies nobody and a final one those who accept it`() async throws {
        try await QueueFixture.with { queue in
            let first = try await queue.create(Slugid.make(), ["retries": 1]).taskID
            let lenient = try await dependent(queue, on: [first], "all-resolved")
            try await queue.resolve(first, as: .workerShutdown)
            try await queue.drawAll()
            #expect(try await queue.store.status(lenient).state == "unscheduled")
            try await queue.resolve(first, as: .workerShutdown, run: 1)
            try await queue.drawAll()
            #expect(try await queue.store.status(lenient).state == "pending")
        }
    }

    @Test func `Q72: a rerun that completes frees those who waited for it`() async throws {
        try await QueueFixture.with { queue in
            let first = try await queue.create().taskID
            let second = try await dependent(queue, on: [first])
            try await queue.resolve(first, as: .failed)
            try await queue.drawAll()
            #expect(try await queue.store.status(second).state == "unscheduled")
            _ = try await queue.store.rerunTask(first, now: queue.start)
            try await queue.resolve(first, run: 1)
            try await queue.drawAll()
            #expect(try await queue.store.status(second).state == "pending")
        }
    }

    @Test(arguments: [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
    func `Q73: dependents follow in whatever order their dependencies end`(order: [Int]) async throws {
        try await QueueFixture.with { queue in
            var required: [String] = []
            for _ in 0..<3 { required.append(try await queue.create().taskID) }
            var dependents: [String] = []
            // Many, so that both kinds come before and after each other in the order of their ids.
            for number in 0..<8 {
                dependents.append(
                    try await dependent(queue, on: required, number % 2 == 0 ? "all-completed" : "all-resolved")
                )
            }
            for position in order {
                for id in dependents { #expect(try await queue.store.status(id).state == "unscheduled") }
                try await queue.resolve(required[position])
                try await queue.drawAll()
            }
            for id in dependents { #expect(try await queue.store.status(id).state == "pending") }
        }
    }

    @Test func `Q66: a blocked task ends with its deadline and frees those who accept that`() async throws {
        try await QueueFixture.with { queue in
            let never = try await queue.create().taskID
            let blocked = try await dependent(queue, on: [never])
            let after = try await queue.create(
                Slugid.make(),
                [
                    "dependencies": [.string(blocked)], "requires": "all-resolved",
                    "deadline": .string((queue.start + .seconds(7200)).iso8601),
                ]
            ).taskID
            let late = queue.start + .seconds(3600)
            while try await queue.store.handleDeadlines(delay: .zero, now: late) > 0 {}
            while try await queue.store.drawConsequences(now: late) {}
            let run = try #require(try await queue.store.status(blocked).runs.first)
            #expect(run.reasonCreated == .exception && run.reasonResolved == .deadlineExceeded)
            #expect(try await queue.store.status(after).state == "pending")
        }
    }

    @Test func `Q74: a dependency that expires too early is refused`() async throws {
        try await QueueFixture.with { queue in
            let brief = try await queue.create(
                Slugid.make(),
                ["expires": .string((queue.start + .seconds(3600)).iso8601)]
            ).taskID
            let later: JSONValue = .string((queue.start + .seconds(7200)).iso8601)
            let refused = try await queue.isRefused {
                try await queue.create(Slugid.make(), ["dependencies": [.string(brief)], "deadline": later])
            }
            #expect(refused)
        }
    }

    @Test func `Q75: a task may depend on itself and waits until somebody schedules it`() async throws {
        try await QueueFixture.with { queue in
            let id = Slugid.make()
            let created = try await queue.create(id, ["dependencies": [.string(id)]])
            #expect(created.state == "unscheduled")
            let scheduled = try await queue.store.scheduleTask(id, now: queue.start)
            #expect(scheduled.state == "pending")
        }
    }

    @Test func `Q79: a dependency that ends after the task was scheduled changes nothing`() async throws {
        try await QueueFixture.with { queue in
            let first = try await queue.create().taskID
            let second = try await dependent(queue, on: [first])
            _ = try await queue.store.scheduleTask(second, now: queue.start)
            try await queue.resolve(first)
            try await queue.drawAll()
            #expect(try await queue.store.status(second).runs.count == 1)
        }
    }

    @Test func `Q50: a claim that expires for good frees dependents and resolves the group`() async throws {
        try await QueueFixture.with { queue in
            let first = try await queue.running(["retries": 0])
            let second = try await dependent(queue, on: [first], "all-resolved")
            #expect(try await queue.store.expireClaims(now: queue.start + .seconds(3)) == 1)
            try await queue.drawAll()
            #expect(try await queue.store.status(first).runs.count == 1)
            #expect(try await queue.store.status(second).state == "pending")
            #expect(try await queue.announced(first).contains("task-group-resolved"))
        }
    }

    @Test func `Q80: a group that was resolved is announced again after a rerun`() async throws {
        try await QueueFixture.with { queue in
            let id = try await queue.create().taskID
            try await queue.resolve(id)
            try await queue.drawAll()
            _ = try await queue.store.rerunTask(id, now: queue.start)
            try await queue.drawAll()
            #expect(try await queue.announced(id).filter { $0 == "task-group-resolved" }.count == 1)
            try await queue.resolve(id, run: 1)
            try await queue.drawAll()
            #expect(try await queue.announced(id).filter { $0 == "task-group-resolved" }.count == 2)
        }
    }
}
