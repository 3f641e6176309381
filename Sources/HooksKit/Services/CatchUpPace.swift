// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// Spreads fires that are made up for, so that the end of an outage is no stampede.
///
/// The first second's worth may go at once; every further fire waits for its turn at the rate.
final class CatchUpPace: Sendable {
    private let step: Duration
    private let next = Mutex<ContinuousClock.Instant?>(nil)

    init(perSecond rate: Int) {
        step = .seconds(1) / max(1, rate)
    }

    /// How long the next fire has to wait.
    func delay(now: ContinuousClock.Instant = .now) -> Duration {
        next.withLock { next in
            let turn = max(next ?? now, now)
            next = turn + step
            return max(.zero, turn - now - .seconds(1))
        }
    }
}
