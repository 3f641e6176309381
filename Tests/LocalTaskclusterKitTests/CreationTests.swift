// SPDX-License-Identifier: MPL-2.0
import JSON
import Postgres
import Schedules
import Taskcluster
import Testing

@testable import LocalTaskclusterKit

/// Tasks that are created at the same time share a transaction, and nothing else.
@Suite(.timeLimit(.minutes(3)))
struct CreationTests {
    /// Creates tasks at once; answers the states of those that exist and the refusals of the others.
    private func create(_ tasks: [TaskDefinition], in queue: QueueFixture) async -> [Result<TaskStatus, any Error>] {
        await withTaskGroup(of: (Int, Result<TaskStatus, any Error>).self) { group in
            for (index, task) in tasks.enumerated() {
                group.addTask {
                    do { return (index, .success(try await queue.store.createTask(task, now: queue.start))) } catch {
                        return (index, .failure(error))
                    }
                }
            }
            var results: [Int: Result<TaskStatus, any Error>] = [:]
            for await (index, result) in group { results[index] = result }
            return tasks.indices.compactMap { results[$0] }
        }
    }

    @Test func `a hundred tasks at once are all there, each announced twice and claimable once`() async throws {
        try await QueueFixture.with { queue in
            let routes: [JSONValue] = [[], ["index.a.b", "r with \"quotes\", {braces} and \\"], ["x"]]
            let tasks = try (0..<100).map { number in
                try queue.definition(
                    Slugid.make(),
                    [
                        "routes": routes[number % 3], "retries": JSONValue(number % 4),
                        "priority": number % 2 == 0 ? "high" : "lowest",
                        "tags": ["text": .string("a \"quoted\" \\ ü, {}")],
                        "payload": ["number": JSONValue(number), "text": "\\\"{},ü\u{1}"],
                    ]
                )
            }
            let results = await create(tasks, in: queue)
            for (task, result) in zip(tasks, results) {
                let status = try result.get()
                #expect(status.taskID == task.taskID)
                #expect(status.state == "pending")
                #expect(try await queue.store.status(task.taskID) == status)
                #expect(try await queue.store.definition(task.taskID) == task.text)
                #expect(try await queue.announced(task.taskID) == ["task-defined", "task-pending"])
            }
            let rows = try await queue.pool.query("select cc, body from tcl.outbox order by id")
            let copies = try rows.map { try $0.strings("cc") }
            for cc in [[], ["route.index.a.b", "route.r with \"quotes\", {braces} and \\"], ["route.x"]] {
                #expect(copies.filter { $0 == cc }.count >= 66)
            }
            var claimed: Set<String> = []
            while case let claims = try await queue.claim(32), !claims.isEmpty {
                for claim in claims { #expect(claimed.insert(claim.status.taskID).inserted) }
            }
            #expect(claimed == Set(tasks.map(\.taskID)))
        }
    }

    @Test func `Q12: the same task at once is created once and everybody is told so`() async throws {
        try await QueueFixture.with { queue in
            for _ in 0..<5 {
                let id = Slugid.make()
                let task = try queue.definition(id)
                let other = try queue.definition(id, ["payload": ["n": 2]])
                let neighbours = try (0..<5).map { _ in try queue.definition(Slugid.make()) }
                let results = await create(
                    Array(repeating: task, count: 10) + neighbours + Array(repeating: other, count: 3),
                    in: queue
                )
                for result in results.dropFirst(10).prefix(5) { #expect((try? result.get())?.state == "pending") }
                let stored = try JSONValue(parsing: try await queue.store.definition(id))
                let isFirst = stored == .object(task.json)
                #expect(isFirst || stored == .object(other.json))
                for (winner, result) in results.prefix(10).map({ (isFirst, $0) })
                    + results.suffix(3).map({ (!isFirst, $0) })
                {
                    switch result {
                    case .success(let status): #expect(winner && status.taskID == id)
                    case .failure(let error): #expect(!winner && (error as? QueueProblem)?.code == .conflict)
                    }
                }
                #expect(try await queue.announced(id) == ["task-defined", "task-pending"])
                let rows = try await queue.pool.query("select run_id from tcl.pending where task_id = \(id)")
                #expect(rows.count == 1)
            }
        }
    }

    @Test func `a task that its group refuses keeps no other from being created`() async throws {
        try await QueueFixture.with { queue in
            let group = try await queue.create(Slugid.make(), ["schedulerId": "mine"]).taskGroupID
            let tasks = try (0..<30).map { number in
                try queue.definition(
                    Slugid.make(),
                    ["taskGroupId": .string(group), "schedulerId": .string(number % 3 == 0 ? "yours" : "mine")]
                )
            }
            for (number, result) in await create(tasks, in: queue).enumerated() {
                switch result {
                case .success(let status): #expect(number % 3 != 0 && status.taskGroupID == group)
                case .failure(let error): #expect(number % 3 == 0 && (error as? QueueProblem)?.code == .conflict)
                }
            }
            let listed = try await queue.pool.query("select task_id from tcl.tasks where task_group_id = \(group)")
            #expect(listed.count == 21)
        }
    }

    @Test func `a task that the database cannot take fails alone`() async throws {
        try await QueueFixture.with { queue in
            // No rule of the queue refuses this one; the column does.
            let impossible = try queue.definition(Slugid.make(), ["retries": 100_000])
            let good = try (0..<12).map { _ in try queue.definition(Slugid.make()) }
            let results = await create(good + [impossible], in: queue)
            for result in results.dropLast() { #expect((try? result.get())?.state == "pending") }
            #expect(throws: PostgresError.self) { try results.last?.get() }
            #expect(try await queue.pool.query("select task_id from tcl.tasks").count == 12)
        }
    }
}
