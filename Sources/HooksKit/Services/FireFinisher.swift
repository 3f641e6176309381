// SPDX-License-Identifier: MPL-2.0

import Core
import Postgres

/// Writes the ends of fires, those that end at the same time with one commit.
final class FireFinisher: Sendable {
    private let rounds: Coalescer<FireStore.Ending, Void>

    /// Writes to a store; `expecting` tells how many fires may end soon.
    init(store: FireStore, expecting: (@Sendable () -> Int)? = nil) {
        rounds = Coalescer(expecting: expecting) { endings in
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
