// SPDX-License-Identifier: MPL-2.0

import Core
import Synchronization

/// Where calls leave what they came to.
final class Mailbox: Sendable {
    private let state = Mutex((busy: Set<String>(), letters: [Observation]()))
    private let signal = Signal()

    func begin(_ step: String) {
        state.withLock { _ = $0.busy.insert(step) }
    }

    func put(_ observation: Observation) {
        state.withLock { state in
            state.busy.remove(observation.step)
            state.letters.append(observation)
        }
        signal.notify()
    }

    /// What has arrived, as soon as there is something, and the steps whose calls are under way at that moment.
    ///
    /// Nothing has arrived if nothing comes for a while.
    func take(within limit: Duration) async -> (letters: [Observation], busy: Set<String>) {
        let deadline = ContinuousClock.now + limit
        while true {
            let found = drain()
            let left = deadline - .now
            // The signal may be about letters that were taken already.
            guard found.letters.isEmpty, left > .zero, await signal.wait(timeout: left) else { return found }
        }
    }

    private func drain() -> (letters: [Observation], busy: Set<String>) {
        state.withLock { state in
            defer { state.letters = [] }
            return (state.letters, state.busy)
        }
    }
}
