// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// Lets what many callers want at the same time be done in one go: one transaction, one call.
///
/// Who is alone never waits for company: what is wanted while nothing is under way is begun at once. What is wanted
/// meanwhile gathers, and the next round takes it all. Where it is known how many may be on their way, a round waits a
/// moment for half of them: two groups that take turns cost less than many that are small. Where nobody waits for the
/// answers, a round can wait for a while in any case. The work answers for each item by itself, so that one bad item need
/// not spoil the others.
public final class Coalescer<Item: Sendable, Output: Sendable>: Sendable {
    /// Does what the items want and answers for each of them, in their order.
    public typealias Work = @Sendable (_ items: [Item]) async -> [Result<Output, any Error>]

    /// Is told what became of an item; must not block.
    public typealias Completion = @Sendable (Result<Output, any Error>) -> Void

    private struct Waiter {
        let item: Item
        let completion: Completion
    }

    private struct State {
        var waiters: [Waiter] = []
        var rounds = 0
        /// How many waiters end a round's wait for company.
        var enough = Int.max
    }

    private let state = Mutex(State())
    private let concurrency: Int
    private let largest: Int
    private let work: Work
    private let expecting: (@Sendable () -> Int)?
    private let patience: Duration
    private let gathered = Signal()

    /// Prepares for rounds of at most `largest` items, of which `concurrency` may be under way.
    ///
    /// Fewer rounds at a time make larger rounds; with one alone, a round that hangs holds up all that come after it.
    /// `expecting` tells how many callers may be on their way, those included that wait already; a round waits for half of
    /// them, but no longer than `patience`.
    public init(
        concurrency: Int = 2,
        largest: Int = 64,
        patience: Duration = .milliseconds(4),
        expecting: (@Sendable () -> Int)? = nil,
        _ work: @escaping Work
    ) {
        self.concurrency = max(1, concurrency)
        self.largest = max(1, largest)
        self.patience = patience
        self.expecting = expecting
        self.work = work
    }

    /// How many items wait for their round.
    public var waiting: Int { state.withLock { $0.waiters.count } }

    /// Returns when the item's round is over.
    ///
    /// A round belongs to several callers, so it goes on when one of them is cancelled, and that caller waits for it.
    public func submit(_ item: Item) async throws -> Output {
        let result: Result<Output, any Error> = await withCheckedContinuation { continuation in
            submit(item) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// Adds an item and returns at once; the completion is called when its round is over.
    public func submit(_ item: Item, then completion: @escaping Completion) {
        let (begins, isEnough) = state.withLock { state in
            state.waiters.append(Waiter(item: item, completion: completion))
            let isEnough = state.waiters.count >= state.enough
            if isEnough { state.enough = .max }
            guard state.rounds < concurrency else { return (false, isEnough) }
            state.rounds += 1
            return (true, isEnough)
        }
        if isEnough { gathered.notify() }
        // A round has several callers, none of whom may end it. Its task begins behind whatever is ready to run now, so
        // callers that were woken together end up in one round.
        if begins { Task { await carryOut() } }
    }

    private func carryOut() async {
        while true {
            await gather()
            let round = state.withLock { state in
                let round = Array(state.waiters.prefix(largest))
                state.waiters.removeFirst(round.count)
                if round.isEmpty { state.rounds -= 1 }
                return round
            }
            guard !round.isEmpty else { return }
            let results = await work(round.map { $0.item })
            precondition(results.count == round.count, "every item of a round needs an answer")
            for (waiter, result) in zip(round, results) { waiter.completion(result) }
            // Those who were just answered may come again at once: they are let in before the next round is closed.
            await Task.yield()
        }
    }

    /// Waits a moment if more than are here must be on their way.
    private func gather() async {
        guard let expecting else { return }
        let enough = min(expecting() / 2, largest)
        let waits = state.withLock { state in
            guard !state.waiters.isEmpty, state.waiters.count < enough else { return false }
            state.enough = enough
            return true
        }
        if waits { _ = await gathered.wait(timeout: patience) }
    }
}
