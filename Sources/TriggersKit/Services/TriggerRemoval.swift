// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Logging
import Postgres
import Pulse

/// Takes away what a trigger left behind that no listener has in its file any more.
///
/// While listeners with an older file are about, nothing of theirs goes: each repeats what it has, and what was repeated
/// lately, or is consumed, stays. A listener that has the trigger and comes up meanwhile waits, and makes the queue anew.
struct TriggerRemoval: Sendable {
    /// What was taken away.
    struct Outcome: Sendable {
        var queues: [(name: String, messages: Int)] = []
        var bindings: [TriggerUse] = []
        var runs = 0
    }

    /// Why nothing was taken away.
    enum Refusal: Error, Equatable {
        case unknown
        case used(String)
        case broker(String)
    }

    let uses: UseStore
    let runs: RunStore
    let pulse: PulseConnection

    /// The queue of a trigger.
    static func queue(of trigger: String, namespace: String) -> String { "queue/\(namespace)/triggers/\(trigger)" }

    private static let patience = Duration.seconds(5)

    /// What is left over, and how much waits there.
    func leftovers() async throws -> [TriggerUse.Leftover] {
        var leftovers = try await uses.leftovers()
        for place in leftovers.indices.prefix(20) where !leftovers[place].use.queue.isEmpty {
            do {
                let status = try await pulse.status(ofQueue: leftovers[place].use.queue, timeout: .seconds(2))
                leftovers[place].messages = status?.messages ?? 0
            } catch {
                Logger.current.debug("a queue was not looked at", metadata: ["error": "\(error)"])
                break
            }
        }
        return leftovers
    }

    /// Takes away the queue of a trigger and what waits for it; of a trigger that is still used, the bindings only that
    /// nobody uses.
    func remove(_ trigger: String) async throws -> Outcome {
        try await uses.pool.transaction { connection in
            let (used, left) = try await uses.lock(trigger, on: connection)
            if let last = used.map(\.seen).max(), left.isEmpty {
                throw Refusal.used(
                    "A listener that was seen at \(last.iso8601) has the trigger \(trigger) in its file; all listeners have "
                        + "to be without it for \(Int(UseStore.silence.components.seconds)) seconds"
                )
            }
            var outcome = Outcome()
            let keptQueues = Set(used.map(\.use.queue))
            var queues = Set(left.map(\.use.queue)).subtracting(keptQueues).filter { !$0.isEmpty }
            // Earlier versions did not write down what they had.
            if used.isEmpty { queues.insert(Self.queue(of: trigger, namespace: pulse.namespace)) }
            do {
                try await delete(queues, &outcome)
                for leftover in left where keptQueues.contains(leftover.use.queue) && !leftover.use.queue.isEmpty {
                    try await pulse.unbind(
                        queue: leftover.use.queue,
                        exchange: leftover.use.exchange,
                        routingKey: leftover.use.routingKey
                    )
                    outcome.bindings.append(leftover.use)
                }
            } catch let error as PulseError {
                throw Refusal.broker("\(error)")
            }
            if used.isEmpty { outcome.runs = try await runs.abandon(trigger, on: connection) }
            try await uses.forget(left.map(\.use), on: connection)
            guard !left.isEmpty || !outcome.queues.isEmpty || outcome.runs > 0 else { throw Refusal.unknown }
            return outcome
        }
    }

    private func delete(_ queues: Set<String>, _ outcome: inout Outcome) async throws {
        for queue in queues.sorted() {
            guard let status = try await pulse.status(ofQueue: queue, timeout: Self.patience) else { continue }
            guard status.consumers == 0 else {
                throw Refusal.used("\(queue) is being consumed: some listener has the trigger in its file")
            }
            outcome.queues.append((queue, try await pulse.deleteQueue(queue)))
        }
    }
}
