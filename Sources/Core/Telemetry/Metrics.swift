// SPDX-License-Identifier: MPL-2.0

import Metrics
import Synchronization

/// The numbers a process keeps about itself, in the text format that Prometheus reads.
///
/// Modules use the swift-metrics types; labels become `a_b_c` and keep to a bounded set of label values. Counters count,
/// meters and gauges show the last value, recorders and timers are histograms (timers in seconds).
public enum Metrics {
    /// The content type of ``exposition()``.
    public static let contentType = "text/plain; version=0.0.4; charset=utf-8"

    private static let registry = MetricsRegistry()
    private static let isBootstrapped = Mutex(false)

    /// Makes the registry receive what swift-metrics records; later calls do nothing.
    public static func bootstrap() {
        let isFirst = isBootstrapped.withLock { flag in
            defer { flag = true }
            return !flag
        }
        if isFirst { MetricsSystem.bootstrap(registry) }
    }

    /// Gives a metric its help text and, for histograms, its bucket limits; call before the first recording.
    public static func describe(_ name: String, _ help: String, buckets: [Double]? = nil) {
        registry.describe(name, help, buckets)
    }

    /// Everything recorded so far and the state of the process, as text.
    public static func exposition() -> String {
        registry.exposition() + ProcessMetrics.exposition()
    }
}
