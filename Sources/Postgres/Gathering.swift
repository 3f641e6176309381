// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// Lets tasks that want the same kind of thing at the same time have it done together, usually in one transaction.
///
/// What is wanted while the work before it is under way gathers, and is done in one piece when that has ended: a task that
/// comes alone does not wait, and the busier it gets the less each costs. A task has its answer when the work that
/// it was part of has ended, never before: what was committed for others was committed for it.
///
/// When work for several fails for a reason that may lie in one of them, it is done again for each by itself, and what
/// comes later does not wait for that. It must have left nothing behind by then, as a transaction does.
public final class Gathering<Item: Sendable, Answer: Sendable>: Sendable {
    private typealias Reply = CheckedContinuation<Result<Answer, any Error>, Never>

    private struct Waiting {
        let id: UInt64
        let item: Item
        let reply: Reply
    }

    private struct State {
        var waiting: [Waiting] = []
        /// Tasks that were cancelled before they could wait.
        var cancelled: Set<UInt64> = []
        var underWay = 0
        var nextID: UInt64 = 0
    }

    private let limit: Int
    private let lanes: Int
    private let pace: Duration
    private let alone: (@Sendable (Item) async throws -> Answer)?
    private let perform: @Sendable ([Item]) async throws -> [Answer]
    private let state = Mutex(State())

    /// Creates a place to gather; at most `limit` items are done together, and `lanes` such pieces of work at once.
    ///
    /// After work for several the next piece begins so much later: where many come, more may gather. The work answers
    /// every item, in their order.
    ///
    /// With `alone` the work may give up early, even where it is for one item, because others wait behind it: what it did
    /// not do is then done in this way, which nobody waits for but who wanted it.
    public init(
        limit: Int = 64,
        lanes: Int = 1,
        pace: Duration = .zero,
        alone: (@Sendable (Item) async throws -> Answer)? = nil,
        _ perform: @escaping @Sendable ([Item]) async throws -> [Answer]
    ) {
        self.limit = max(1, limit)
        self.lanes = max(1, lanes)
        self.pace = pace
        self.alone = alone
        self.perform = perform
    }

    /// Has something done and answers what came of it.
    ///
    /// Cancellation helps only until the work has begun; from then on its end is waited for.
    public func add(_ item: Item) async throws -> Answer {
        let id = state.withLock { state in
            state.nextID += 1
            return state.nextID
        }
        defer { state.withLock { _ = $0.cancelled.remove(id) } }
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { (reply: Reply) in
                let isNeeded: Bool? = state.withLock { state in
                    guard !state.cancelled.contains(id) else { return nil }
                    state.waiting.append(Waiting(id: id, item: item, reply: reply))
                    guard state.underWay < lanes else { return false }
                    state.underWay += 1
                    return true
                }
                switch isNeeded {
                // A task of its own, which ends with what there is to do: nobody's cancellation may hit the others.
                case true?: Task { await self.work() }
                case false?: break
                case nil: reply.resume(returning: .failure(CancellationError()))
                }
            }
        } onCancel: {
            let waiting: Waiting? = state.withLock { state in
                guard let index = state.waiting.firstIndex(where: { $0.id == id }) else {
                    state.cancelled.insert(id)
                    return nil
                }
                return state.waiting.remove(at: index)
            }
            waiting?.reply.resume(returning: .failure(CancellationError()))
        }
        return try result.get()
    }

    /// How many wait for work to begin.
    package var waiting: Int { state.withLock { $0.waiting.count } }

    private func work() async {
        while true {
            let batch: [Waiting] = state.withLock { state in
                let batch = Array(state.waiting.prefix(limit))
                state.waiting.removeFirst(batch.count)
                if batch.isEmpty { state.underWay -= 1 }
                return batch
            }
            guard !batch.isEmpty else { return }
            await finish(batch)
            // Nobody cancels this task; were it so, it would only be quicker.
            if batch.count > 1, pace > .zero { try? await Task.sleep(for: pace) }
        }
    }

    private func finish(_ batch: [Waiting]) async {
        do {
            let answers = try await perform(batch.map(\.item))
            precondition(answers.count == batch.count, "every item gets an answer")
            for (waiting, answer) in zip(batch, answers) { waiting.reply.resume(returning: .success(answer)) }
        } catch {
            guard batch.count > 1 || alone != nil, Self.mayLieInOne(error) else {
                for waiting in batch { waiting.reply.resume(returning: .failure(error)) }
                return
            }
            // Tasks of their own, which end with their answers: one that is held up must not hold up the others.
            for waiting in batch { Task { await self.finishAlone(waiting) } }
        }
    }

    private func finishAlone(_ waiting: Waiting) async {
        do {
            if let alone {
                waiting.reply.resume(returning: .success(try await alone(waiting.item)))
            } else {
                waiting.reply.resume(returning: .success(try await perform([waiting.item])[0]))
            }
        } catch {
            waiting.reply.resume(returning: .failure(error))
        }
    }

    /// Whether others may succeed where all together failed; a database that is away fails for everybody.
    ///
    /// After a connection that broke nobody knows whether the work was done: it must not be done again by itself.
    private static func mayLieInOne(_ error: any Error) -> Bool {
        guard let error = error as? PostgresError else { return !(error is CancellationError) }
        return !error.isConnectionFailure && (error.code == .server || error.code == .decoding)
    }
}
