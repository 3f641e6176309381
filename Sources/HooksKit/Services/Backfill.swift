// SPDX-License-Identifier: MPL-2.0

import Postgres
package import Schedules

/// Fires the instants of a range that came to nothing when their time was.
package struct Backfill: Sendable {
    let schedules: ScheduleStore
    let fires: FireStore
    let ledger: LedgerStore
    let programs: HookPrograms
    let now: @Sendable () -> Timestamp

    package init(
        schedules: ScheduleStore,
        fires: FireStore,
        ledger: LedgerStore,
        programs: HookPrograms,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        self.schedules = schedules
        self.fires = fires
        self.ledger = ledger
        self.programs = programs
        self.now = now
    }

    /// Most instants of one request.
    static let limit = 1000

    /// What a request came to.
    struct Result: Sendable {
        /// The instants that will fire, with their tasks.
        var accepted: [(instant: Timestamp, taskID: String)] = []
        /// How many instants of the range have been settled before.
        var settled = 0
    }

    /// A range that cannot be made up for.
    enum Refusal: Error, Sendable {
        case noSuchHook
        case tooMany
        case unusable(String)
    }

    /// Accepts the fires of a range, one after the other at a rate, or only tells which there would be.
    ///
    /// Instants that are still awaited belong to the scheduler and are left to it.
    func run(
        _ name: HookName,
        from start: Timestamp,
        to end: Timestamp,
        perSecond rate: Int,
        isRehearsal: Bool
    ) async throws -> Result {
        let instant = now()
        return try await schedules.pool.transaction { connection in
            guard let hook = try await schedules.lock(name, on: connection) else { throw Refusal.noSuchHook }
            let plan: FiringPlan
            do throws(InvalidHook) { plan = try schedules.plan(of: hook) } catch {
                throw Refusal.unusable(error.message)
            }
            let end = min(end, instant, hook.due.instant)
            let instants = plan.instants(from: start, to: end, limit: Self.limit + 1)
            guard instants.count <= Self.limit else { throw Refusal.tooMany }
            let settled = try await ledger.settled(of: name, from: start, to: end, on: connection)
            let missing = instants.filter { !settled.contains($0) }
            var result = Result(settled: instants.count - missing.count)
            guard let program = try await programs.programs(of: [(name, hook.version)], on: connection)[name] else {
                throw Refusal.noSuchHook
            }
            let drafts = missing.enumerated().map { index, due in
                var draft = FireDraft.scheduled(hook, .init(due), program, at: instant, origin: .backfill)
                draft.rendered = now()
                draft.delay = .seconds(index) / max(1, rate)
                return draft
            }
            result.accepted = drafts.map { ($0.due ?? instant, $0.taskID) }
            if !isRehearsal { _ = try await fires.accept(drafts, slots: 0, on: connection) }
            return result
        }
    }
}
