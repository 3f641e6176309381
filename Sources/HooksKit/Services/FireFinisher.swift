// SPDX-License-Identifier: MPL-2.0

import Core
import Postgres

/// Writes the ends of fires, those that end at the same time with one commit.
final class FireFinisher: Sendable {
    private let rounds: Coalescer<FireStore.Ending, Void>

    /// How many ends are written together at most.
    private static let largest = 64

    /// Writes to a store.
    ///
    /// Hardly anybody waits for the end of a fire, so that a round can wait for company; and one round comes after the
    /// other, so that fires are announced in the order in which they ended.
    init(store: FireStore) {
        rounds = Coalescer(
            concurrency: 1,
            largest: Self.largest,
            patience: .milliseconds(10),
            expecting: { 2 * Self.largest }
        ) { endings in
            do {
                try await store.finish(endings)
                return endings.map { _ in .success(()) }
            } catch  where endings.count > 1 {
                // One that cannot be written must not keep the others open; writing an end twice changes nothing.
                var results: [Result<Void, any Error>] = []
                for ending in endings {
                    do { results.append(.success(try await store.finish([ending]))) } catch {
                        results.append(.failure(error))
                    }
                }
                return results
            } catch {
                return endings.map { _ in .failure(error) }
            }
        }
    }

    /// Returns when the end of a fire is durable.
    func finish(_ ending: FireStore.Ending) async throws {
        try await rounds.submit(ending)
    }

    /// Writes the end of a fire that nobody waits for; the completion is called when it is durable, or cannot be written.
    func finish(_ ending: FireStore.Ending, then completion: @escaping @Sendable (Result<Void, any Error>) -> Void) {
        rounds.submit(ending, then: completion)
    }
}
