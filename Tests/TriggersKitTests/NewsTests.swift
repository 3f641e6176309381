// SPDX-License-Identifier: MPL-2.0

import Core
import HooksKit
import JSON
import Postgres
import Pulse
import TestSupport
import Testing

@testable import TriggersKit

@Suite(.timeLimit(.minutes(5)))
struct NewsTests {
    private static let kinds = ["task-completed", "task-failed", "task-exception"]

    /// Tasks of triggers that were just made.
    private func tasks(_ world: TriggersWorld, _ count: Int) async throws -> [String] {
        try await world.makeHook()
        let sightings = (0..<count).map { number in
            Sighting(subject: "\(number)", facts: .commit(revision: "aa", review: number, diffset: 1), origin: .message)
        }
        _ = try await world.runs.add(sightings, for: TriggersWorld.commits)
        try await world.settle(world.worker([TriggersWorld.commits]))
        return world.queue.tasks.keys.sorted()
    }

    private func count(_ world: TriggersWorld, _ condition: SQL) async throws -> Int {
        try await world.pool.query("select count(*) as n from triggers.tasks where " + condition).first?.int("n") ?? -1
    }

    private func message(_ exchange: String, _ taskID: String, _ state: String) -> PulseMessage {
        let body: JSONValue = ["status": ["taskId": .string(taskID), "state": .string(state)]]
        return PulseMessage(
            exchange: exchange,
            routingKey: "primary.\(taskID).0.group.worker.provisioner.type.-.\(taskID)._",
            body: body.bytes()
        )
    }

    @Test func `the ends of our tasks are heard, those of others are not, and nothing stays at the broker`()
        async throws
    {
        try await TriggersWorld.with { world in
            let ids = try await tasks(world, 4)
            let suffixes = Self.kinds.map { "-\($0)" }
            try await Broker.lend(suffixes: suffixes) { pulse, exchange, queue in
                for suffix in suffixes { try await pulse.declareExchange(exchange + suffix) }
                let shared = PulseQueue(queue, kind: .classic)
                let all = (0..<2).map { _ in
                    TaskNews(
                        tasks: world.taskStore,
                        places: world.places,
                        pulse: pulse,
                        queue: shared,
                        exchanges: exchange + "-"
                    )
                }
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for news in all { group.addTask { try await news.run() } }
                    try await eventually("the queue is to tell about all") { try await count(world, "bound") == 4 }
                    // What happened before is asked for once, and then seldom.
                    #expect(try await count(world, "next_look <= now()") == 4)
                    let watch = TaskWatch(
                        tasks: world.taskStore,
                        places: world.places,
                        states: TaskStates(client: world.client)
                    )
                    try await watch.look()
                    #expect(try await count(world, "next_look > now() + interval '4 minutes'") == 4)

                    let ends = [("completed", ids[0]), ("failed", ids[1]), ("exception", ids[2])]
                    let other = "fUcGNXd7Q5S8LTPwG8cmFw"
                    for (state, id) in ends + [("completed", other)] {
                        // News may come more than once.
                        for _ in 0..<2 { try await pulse.publish(message("\(exchange)-task-\(state)", id, state)) }
                    }
                    try await eventually("the ends are noted") { try await count(world, "ended is not null") == 3 }
                    try await eventually("nothing stays") { try await count(world, "bound") == 1 }
                    group.cancelAll()
                }
                for (state, id) in ends(ids) {
                    #expect(try await count(world, "task_id = \(id) and state = \(state)") == 1)
                }
                // One of them ends again, another one for the first time: only that is told.
                for id in [ids[0], ids[3]] {
                    try await pulse.publish(message("\(exchange)-task-completed", id, "completed"))
                }
                try await eventually("one message waits") { try await pulse.status(ofQueue: queue)?.messages == 1 }
            }
        }
    }

    private func ends(_ ids: [String]) -> [(String, String)] {
        [("completed", ids[0]), ("failed", ids[1]), ("exception", ids[2]), ("pending", ids[3])]
    }

    @Test func `a broker without the queue's exchanges harms nothing`() async throws {
        try await TriggersWorld.with { world in
            let ids = try await tasks(world, 2)
            try await Broker.lend { pulse, exchange, queue in
                let news = TaskNews(
                    tasks: world.taskStore,
                    places: world.places,
                    pulse: pulse,
                    queue: PulseQueue(queue, kind: .classic),
                    exchanges: exchange + "-nowhere-"
                )
                try await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask { try await news.run() }
                    try await eventually("it was tried") {
                        try await !world.pool.query("select from triggers.places where name = 'bindings'").isEmpty
                    }
                    world.queue.state.withLock { $0.states = [ids[0]: "completed", ids[1]: "failed"] }
                    let watch = TaskWatch(
                        tasks: world.taskStore,
                        places: world.places,
                        states: TaskStates(client: world.client)
                    )
                    try await watch.look()
                    #expect(try await count(world, "ended is not null") == 2)
                    #expect(try await count(world, "bound") == 0)
                    group.cancelAll()
                }
            }
        }
    }
}
