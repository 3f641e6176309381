// SPDX-License-Identifier: MPL-2.0

import Core
import HooksKit
import Logging
import Metrics
import Notices
import ServiceLifecycle

/// Follows the tasks that triggers made: asks the queue once a second for a few of them, in turns, whatever the number
/// of processes.
struct TaskWatch: Service {
    let tasks: TaskStore
    let places: PlaceStore
    let states: TaskStates

    /// How many tasks one question is about.
    private static let width = 20
    /// How long the other tasks have their turn.
    private static let pause = Duration.seconds(10)
    /// The same for tasks whose ends the queue tells by itself.
    private static let pauseIfBound = Duration.seconds(300)

    func run() async throws {
        try await PeriodicService(name: "states of triggered tasks", every: .seconds(1)) { try await look() }.run()
    }

    /// Asks for some tasks if nobody has this second.
    func look() async throws {
        guard try await places.take(.tasks, lease: .milliseconds(900)) != nil else { return }
        let taskIDs = try await tasks.take(limit: Self.width, pause: Self.pause, pauseIfBound: Self.pauseIfBound)
        guard !taskIDs.isEmpty else { return }
        try await tasks.noteAndCount(await states.states(of: taskIDs))
    }
}

extension TaskStore {
    /// Notes states, and counts the tasks that ended.
    func noteAndCount(_ states: [String: String]) async throws {
        for (state, count) in try await note(states) {
            Counter(label: "triggers_tasks_total", dimensions: [("state", state)]).increment(by: count)
        }
    }
}

/// Writes a letter about how the tasks of a period ended, unless all of them completed.
struct Reporter: Service {
    let addresses: [String]
    let interval: Duration
    let rootURL: String
    let places: PlaceStore
    let tasks: TaskStore
    let runs: RunStore
    let letters: LetterStore
    let uses: UseStore
    let notices: NoticeStore

    func run() async throws {
        try await PeriodicService(name: "report of triggers", every: min(.seconds(30), interval)) {
            try await report()
        }.run()
    }

    /// Reports if it is time; answers how many letters it wrote.
    @discardableResult
    func report() async throws -> Int {
        try await places.pool.transaction { connection -> Int in
            // A period ends here unless the first one begins.
            guard let taken = try await places.take(.report, lease: interval, on: connection), !taken.isNew else {
                return 0
            }
            let report = Report(
                endings: try await tasks.report(on: connection),
                stuck: try await runs.stuck(on: connection),
                letters: try await letters.unanswered(within: interval, on: connection),
                leftovers: Set(try await uses.leftovers().map(\.use.trigger)).sorted()
            )
            guard !report.isQuiet else { return 0 }
            let number = try await connection.query("select nextval('triggers.reports') as number").first?.int("number")
            let text = report.text(rootURL: rootURL)
            for address in addresses {
                _ = try await notices.add(
                    Notice(
                        key: "report \(number ?? 0) \(address)",
                        channel: .email,
                        target: address,
                        subject: "Pulse listener tasks",
                        text: text,
                        document: .null
                    ),
                    on: connection
                )
            }
            return addresses.count
        }
    }
}
