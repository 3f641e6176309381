// SPDX-License-Identifier: MPL-2.0

import Logging
import Metrics
import Synchronization

/// What one source may still send, and what became of what it sent.
final class SourceGate: Sendable {
    /// What became of a request; the words are labels of a metric.
    enum Outcome: String, CaseIterable {
        case accepted, duplicate, conflict, ping, unsigned, malformed, oversized, limited, unavailable
    }

    let source: WebhookSource
    private let bucket: Mutex<TokenBucket>
    private let started = ContinuousClock.now
    private let counters: [Outcome: Counter]
    private let durations: Recorder
    /// When each kind of refusal was last logged, and how many were not since.
    private let refusals = Mutex<[Outcome: (last: ContinuousClock.Instant, silent: Int)]>([:])

    /// How often the same trouble of a source reaches the log.
    private static let logInterval = Duration.seconds(10)

    init(_ source: WebhookSource) {
        self.source = source
        bucket = Mutex(TokenBucket(rate: source.rate, burst: source.burst, at: .zero))
        counters = Dictionary(
            uniqueKeysWithValues: Outcome.allCases.map { outcome in
                let labels = [("source", source.name), ("outcome", outcome.rawValue)]
                return (outcome, Counter(label: "bridge_deliveries_total", dimensions: labels))
            }
        )
        durations = Recorder(
            label: "bridge_delivery_seconds",
            dimensions: [("source", source.name)],
            aggregate: true
        )
    }

    /// How long to wait until a delivery may pass; nil if one may now.
    func delay() -> Duration? {
        bucket.withLock { $0.delay(at: .now - started) }
    }

    /// Lets one delivery pass, or answers how long to wait.
    func take() -> Duration? {
        bucket.withLock { $0.take(at: .now - started) }
    }

    func count(_ outcome: Outcome, since start: ContinuousClock.Instant) {
        counters[outcome]?.increment()
        guard outcome == .accepted || outcome == .duplicate else { return }
        let (seconds, attoseconds) = (ContinuousClock.now - start).components
        durations.record(Double(seconds) + Double(attoseconds) / 1e18)
    }

    /// Tells the log about trouble: at once, then every ten seconds with the number of those in between.
    func report(_ outcome: Outcome, _ reason: String, from address: String?) {
        let silent: Int? = refusals.withLock { refusals in
            let now = ContinuousClock.now
            if let known = refusals[outcome], known.last + Self.logInterval > now {
                refusals[outcome]?.silent += 1
                return nil
            }
            return refusals.updateValue((now, 0), forKey: outcome)?.silent ?? 0
        }
        guard let silent else { return }
        var facts: Logger.Metadata = [
            "bridge.source": "\(source.name)", "bridge.outcome": "\(outcome.rawValue)", "reason": "\(reason)",
        ]
        if let address { facts["sourceIp"] = "\(address)" }
        if silent > 0 { facts["bridge.silent"] = "\(silent)" }
        Logger.current.warning("webhook refused", metadata: facts)
    }
}
