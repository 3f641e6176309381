// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Metrics
import Schedules
import ServiceLifecycle

/// Announces every minute of the clock, once for all processes together.
struct ClockPublisher: Service {
    let store: ClockStore
    let catchUp: Duration
    let now: @Sendable () -> Timestamp

    init(store: ClockStore, catchUp: Duration, now: @escaping @Sendable () -> Timestamp = { .now() }) {
        self.store = store
        self.catchUp = catchUp
        self.now = now
    }

    func run() async throws {
        await cancelWhenGracefulShutdown { await loop() }
    }

    private func loop() async {
        var failures = 0
        while !Task.isCancelled {
            var pause: Duration
            do {
                try await announce()
                if failures > 0 { Logger.current.notice("the clock is announced again") }
                failures = 0
                let instant = now()
                // A millisecond more, so that the minute has come by the millisecond clock when the timer ends.
                pause = ClockMinute(containing: instant).advanced(by: 1).start - instant + .milliseconds(1)
            } catch {
                if Task.isCancelled { return }
                failures += 1
                pause = min(RetryPolicy.reconnect.delay(before: failures + 1), .seconds(15))
                if failures == 1 {
                    Logger.current.error("the clock cannot be announced", metadata: ["error": "\(error)"])
                }
            }
            do { try await Task.sleep(for: pause) } catch { return }
        }
    }

    /// Announces what is due.
    @discardableResult
    func announce() async throws -> ClockStore.Result {
        let result = try await store.announce(now: now(), catchUp: catchUp)
        Counter(label: "bridge_clock_minutes_total", dimensions: [("outcome", "announced")])
            .increment(by: result.announced.count)
        if result.skipped > 0 {
            Counter(label: "bridge_clock_minutes_total", dimensions: [("outcome", "skipped")])
                .increment(by: result.skipped)
            Logger.current.warning(
                "minutes were missed for too long to be announced",
                metadata: ["bridge.skipped": "\(result.skipped)", "bridge.catchUp": "\(catchUp.settingsText)"]
            )
        }
        if result.announced.count > 1 {
            Logger.current.notice("missed minutes announced", metadata: ["count": "\(result.announced.count - 1)"])
        }
        return result
    }
}
