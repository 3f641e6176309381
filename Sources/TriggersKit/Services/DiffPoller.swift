// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Metrics
import Postgres
import ServiceLifecycle

/// Looks for new diffs of Phabricator and writes each down once for every trigger that wants them.
///
/// The id of the last one lives in the database and moves in the transaction that writes the diffs down, and only from
/// where the look began: a process that dies between the two loses nothing, and two processes do nothing twice.
struct DiffPoller: Service {
    let triggers: [Trigger]
    let phabricator: Phabricator
    let places: PlaceStore
    let runs: RunStore
    let interval: Duration
    let wake: Signal

    /// How long one process looks alone.
    ///
    /// Should it take longer, another one begins, and only one of them moves on.
    private var lease: Duration { min(max(interval * 2, .seconds(2)), .seconds(40)) }
    /// The longest pause after failures.
    private static let longestPause = Duration.seconds(600)
    /// How many pages are read at a time; then others may go on.
    private static let pages = 50

    func run() async throws {
        do {
            // Whoever has put right what kept Phabricator from answering starts anew and waits for no pause.
            try await places.hasten(.phabricator, within: interval)
        } catch {
            Logger.current.warning("the pause before the next look stays", metadata: ["error": "\(error)"])
        }
        try await PeriodicService(name: "look for diffs", every: min(interval, .seconds(5))) {
            try await look()
        }.run()
    }

    /// Looks if it is time; answers how many diffs were written down, nil if somebody else looks or it is not time yet.
    @discardableResult
    func look() async throws -> Int? {
        guard let taken = try await places.take(.phabricator, lease: lease) else { return nil }
        let failures = taken.failures
        do {
            let (count, isLast) = try await read(from: taken.lastID)
            // More are waiting: come back at once.
            try await places.finish(.phabricator, error: nil, pause: isLast ? interval : .zero)
            note("success")
            if failures > 0 { Logger.current.notice("Phabricator answers again") }
            return count
        } catch let failure as Conduit.Failure {
            note("failure")
            let pause = RetryPolicy(attempts: .max, base: interval, maximum: max(Self.longestPause, interval))
                .delay(before: failures + 2)
            Logger.current.log(
                level: failures == 0 ? .error : .debug,
                "Phabricator cannot be asked for diffs",
                metadata: ["error": "\(failure)"]
            )
            try await places.finish(
                .phabricator,
                error: failure.description,
                pause: max(pause, failure.retryAfter ?? .zero)
            )
            return 0
        }
    }

    private func read(from lastID: Int?) async throws -> (count: Int, isLast: Bool) {
        guard var last = lastID else {
            // The first look ever begins at the newest diff; what was there before is nobody's business.
            let newest = try await phabricator.newestDiff()
            _ = try await places.pool.transaction { connection in
                try await places.advance(.phabricator, from: nil, to: newest, on: connection)
            }
            Logger.current.notice("diffs are watched from the newest on", metadata: ["diff": "\(newest)"])
            return (0, true)
        }
        var count = 0
        for _ in 0..<Self.pages {
            let (entries, isLast) = try await phabricator.diffs(after: last)
            let fresh = entries.filter { $0.id > last }
            guard let newest = fresh.map(\.id).max() else { return (count, true) }
            guard let added = try await write(fresh, from: last, to: newest) else { return (count, true) }
            count += added
            last = newest
            if added > 0 { wake.notify() }
            if isLast { return (count, true) }
        }
        return (count, false)
    }

    /// Writes a page down and moves on; nil if somebody else has moved.
    private func write(_ entries: [Phabricator.Entry], from old: Int, to new: Int) async throws -> Int? {
        let sightings = entries.filter(\.isDiff).map { entry in
            let diff = Facts.Diff(id: entry.id, phid: entry.phid, revisionPHID: entry.revisionPHID)
            return Sighting(subject: String(entry.id), facts: .diff(diff), origin: .poll)
        }
        return try await places.pool.transaction { connection -> Int? in
            guard try await places.advance(.phabricator, from: old, to: new, on: connection) else { return nil }
            var added = 0
            for trigger in triggers {
                added += try await runs.add(sightings, for: trigger, on: connection)
            }
            return added
        }
    }

    private func note(_ outcome: String) {
        Counter(label: "triggers_polls_total", dimensions: [("outcome", outcome)]).increment()
    }
}
