// SPDX-License-Identifier: MPL-2.0

import Postgres
import Synchronization

/// Writes the ends of fires, many with one commit when many end at once.
///
/// Nobody waits for company: a fire that ends alone is written at once. While a batch is being written the next one
/// gathers, and whoever waits longest then writes it.
final class FireFinisher: Sendable {
    private enum Turn {
        case written
        /// The batch failed as a whole; each tries for itself.
        case failed
        /// Write the next batch.
        case lead
    }

    private struct Waiter {
        let ending: FireStore.Ending
        let continuation: CheckedContinuation<Turn, Never>
    }

    private struct State {
        var leaders = 0
        var waiters: [Waiter] = []
    }

    /// Two batches may be under way: one fills while the other waits for the disk.
    private static let mostLeaders = 2
    private static let largestBatch = 64

    private let store: FireStore
    private let state = Mutex(State())

    init(store: FireStore) {
        self.store = store
    }

    /// Returns when the end of a fire is durable.
    func finish(_ ending: FireStore.Ending) async throws {
        switch await turn(for: ending) {
        case .written: return
        case .failed: try await store.finish([ending])
        case .lead: try await lead(ending)
        }
    }

    private func turn(for ending: FireStore.Ending) async -> Turn {
        let leads = state.withLock { state in
            guard state.leaders < Self.mostLeaders else { return false }
            state.leaders += 1
            return true
        }
        if leads { return .lead }
        return await withCheckedContinuation { continuation in
            let leads = state.withLock { state in
                // A leader may have left meanwhile, and nobody would come for this one.
                if state.leaders < Self.mostLeaders {
                    state.leaders += 1
                    return true
                }
                state.waiters.append(Waiter(ending: ending, continuation: continuation))
                return false
            }
            if leads { continuation.resume(returning: .lead) }
        }
    }

    private func lead(_ own: FireStore.Ending) async throws {
        let others = state.withLock { state in
            let batch = Array(state.waiters.prefix(Self.largestBatch - 1))
            state.waiters.removeFirst(batch.count)
            return batch
        }
        defer { passOn() }
        do {
            try await store.finish([own] + others.map(\.ending))
            for other in others { other.continuation.resume(returning: .written) }
        } catch {
            for other in others { other.continuation.resume(returning: .failed) }
            throw error
        }
    }

    /// Hands the lead to the one who waits longest, or gives it up.
    private func passOn() {
        let next = state.withLock { state -> Waiter? in
            guard !state.waiters.isEmpty else {
                state.leaders -= 1
                return nil
            }
            return state.waiters.removeFirst()
        }
        next?.continuation.resume(returning: .lead)
    }
}
