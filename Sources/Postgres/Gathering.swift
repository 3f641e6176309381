// SPDX-License-Identifier: MPL-2.0

import Core

/// Lets tasks that want the same kind of thing at the same time have it done in one transaction.
///
/// What is wanted while the work before it is under way gathers, and is done in one piece when that has ended: a task that
/// comes alone does not wait, and the busier it gets the less each costs. A task has its answer when the work that
/// it was part of has ended, never before: what was committed for others was committed for it.
///
/// When work for several fails for a reason that may lie in one of them, it is done again for each by itself, and what
/// comes later does not wait for that. It must have left nothing behind by then, as a transaction does.
public final class Gathering<Item: Sendable, Answer: Sendable>: Sendable {
    private struct Waiting: Sendable {
        let item: Item
        let reply: CheckedContinuation<Answer, any Error>
    }

    private let rounds: Coalescer<Waiting, Void>

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
        rounds = Coalescer(concurrency: lanes, largest: limit) { batch in
            await Self.finish(batch, alone, perform)
            // Nobody cancels a round; were it so, it would only be quicker.
            if batch.count > 1, pace > .zero { try? await Task.sleep(for: pace) }
            return batch.map { _ in .success(()) }
        }
    }

    /// Has something done and answers what came of it.
    ///
    /// Who is cancelled before has nothing done; from then on the end is waited for.
    public func add(_ item: Item) async throws -> Answer {
        try Task.checkCancellation()
        return try await withCheckedThrowingContinuation { reply in
            rounds.submit(Waiting(item: item, reply: reply)) { _ in }
        }
    }

    /// How many wait for work to begin.
    package var waiting: Int { rounds.waiting }

    private static func finish(
        _ batch: [Waiting],
        _ alone: (@Sendable (Item) async throws -> Answer)?,
        _ perform: @escaping @Sendable ([Item]) async throws -> [Answer]
    ) async {
        do {
            let answers = try await perform(batch.map(\.item))
            precondition(answers.count == batch.count, "every item gets an answer")
            for (waiting, answer) in zip(batch, answers) { waiting.reply.resume(returning: answer) }
        } catch {
            guard batch.count > 1 || alone != nil, mayLieInOne(error) else {
                for waiting in batch { waiting.reply.resume(throwing: error) }
                return
            }
            // Tasks of their own, which end with their answers: one that is held up must not hold up the others.
            for waiting in batch {
                Task {
                    do {
                        let answer =
                            if let alone { try await alone(waiting.item) } else { try await perform([waiting.item])[0] }
                        waiting.reply.resume(returning: answer)
                    } catch {
                        waiting.reply.resume(throwing: error)
                    }
                }
            }
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
