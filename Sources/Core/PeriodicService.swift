// SPDX-License-Identifier: MPL-2.0

import Logging
import Metrics
public import ServiceLifecycle

/// Does a small piece of work again and again, first at once, until the process stops.
///
/// A failure never ends the process: the first of a streak is logged, then pauses grow up to a minute or the interval,
/// whichever is longer, until a run succeeds again.
public struct PeriodicService: Service {
    private let name: String
    private let interval: Duration
    private let jitter: Double
    private let runOnce: @Sendable () async throws -> Void

    /// Creates a service that runs a bounded piece of work at an interval, more or less the jitter's share of it.
    public init(
        name: String,
        every interval: Duration,
        jitter: Double = 0.1,
        _ runOnce: @escaping @Sendable () async throws -> Void
    ) {
        self.name = name
        self.interval = interval
        self.jitter = jitter
        self.runOnce = runOnce
    }

    /// Runs until graceful shutdown or cancellation.
    public func run() async throws {
        await cancelWhenGracefulShutdown { await loop() }
    }

    private func loop() async {
        var failures = 0
        while !Task.isCancelled {
            let started = ContinuousClock.now
            do {
                try await runOnce()
                note("success", started)
                if failures > 0 {
                    Logger.current.notice("periodic work succeeds again", metadata: metadata(failures))
                }
                failures = 0
            } catch {
                guard !Task.isCancelled else { return }
                note("exception", started)
                failures += 1
                let level: Logger.Level = failures == 1 ? .error : .debug
                Logger.current.log(
                    level: level,
                    "periodic work failed",
                    metadata: metadata(failures).merging(["error": "\(error)"]) { $1 }
                )
            }
            do { try await Task.sleep(for: pause(after: failures)) } catch { return }
        }
    }

    private func pause(after failures: Int) -> Duration {
        if failures > 0 {
            let longest = max(interval, .seconds(60))
            return RetryPolicy(attempts: .max, base: min(interval, .seconds(1)), maximum: longest)
                .delay(before: failures + 1)
        }
        return jitter > 0 ? interval * Double.random(in: (1 - jitter)...(1 + jitter)) : interval
    }

    private func note(_ status: String, _ started: ContinuousClock.Instant) {
        let seconds = (ContinuousClock.now - started).seconds
        Recorder(
            label: "iterate_duration_seconds",
            dimensions: [("name", name), ("status", status)],
            aggregate: true
        ).record(seconds)
        Logger.current.debug(
            "monitor.periodic",
            metadata: [
                "name": .string(name), "status": .string(status),
                "duration": .stringConvertible((seconds * 1_000_000).rounded() / 1000),
            ]
        )
    }

    private func metadata(_ failures: Int) -> Logger.Metadata {
        ["periodic.name": "\(name)", "periodic.failures": "\(failures)"]
    }
}
