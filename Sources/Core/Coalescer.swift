// SPDX-License-Identifier: MPL-2.0

public import Synchronization

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

    // Whoever uses it compiles it for its own items: looked up at run time, their types cost more than the bookkeeping.
    @usableFromInline
    struct Waiter {
        @usableFromInline let item: Item
        @usableFromInline let completion: Completion

        @inlinable
        init(item: Item, completion: @escaping Completion) {
            self.item = item
            self.completion = completion
        }
    }

    @usableFromInline
    struct State {
        @usableFromInline var waiters: [Waiter] = []
        @usableFromInline var rounds = 0
        /// How many waiters end a round's wait for company.
        @usableFromInline var enough = Int.max

        @inlinable
        init() {}
    }

    @usableFromInline let state = Mutex(State())
    @usableFromInline let concurrency: Int
    @usableFromInline let largest: Int
    @usableFromInline let work: Work
    @usableFromInline let expecting: (@Sendable () -> Int)?
    @usableFromInline let isAlone: @Sendable () -> Bool
    @usableFromInline let patience: Duration
    @usableFromInline let gathered = Signal()

    /// Prepares for rounds of at most `largest` items, of which `concurrency` may be under way.
    ///
    /// Fewer rounds at a time make larger rounds; with one alone, a round that hangs holds up all that come after it.
    /// `expecting` tells how many callers may be on their way, those included that wait already; a round waits for half of
    /// them, but no longer than `patience`.
    ///
    /// `isAlone` tells that nobody but the caller can be on the way. Then a round begins in the caller's thread, which saves
    /// waking another one; by default that is so when one at most is expected.
    @inlinable
    public init(
        concurrency: Int = 2,
        largest: Int = 64,
        patience: Duration = .milliseconds(4),
        expecting: (@Sendable () -> Int)? = nil,
        isAlone: (@Sendable () -> Bool)? = nil,
        _ work: @escaping Work
    ) {
        self.concurrency = max(1, concurrency)
        self.largest = max(1, largest)
        self.patience = patience
        self.expecting = expecting
        self.isAlone = isAlone ?? { expecting.map { $0() <= 1 } ?? false }
        self.work = work
    }

    /// How many items wait for their round.
    @inlinable
    public var waiting: Int { state.withLock { $0.waiters.count } }

    /// Returns when the item's round is over.
    ///
    /// A round belongs to several callers, so it goes on when one of them is cancelled, and that caller waits for it.
    @inlinable
    public func submit(_ item: Item) async throws -> Output {
        let result: Result<Output, any Error> = await withCheckedContinuation { continuation in
            submit(item) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// Adds an item and returns at once; the completion is called when its round is over.
    @inlinable
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
        guard begins else { return }
        // A round has several callers, none of whom may end it, hence a task. It begins behind whatever is ready to run now,
        // so that callers that were woken together end up in one round.
        if isAlone() { Task.immediate { await carryOut() } } else { Task { await carryOut() } }
    }

    @inlinable
    func carryOut() async {
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
    @inlinable
    func gather() async {
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
