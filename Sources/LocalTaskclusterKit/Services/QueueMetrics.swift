// SPDX-License-Identifier: MPL-2.0
import Metrics

/// What the queue counts, for whoever watches it.
enum QueueMetrics {
    /// Runs that workers were given by `claimWork`.
    static let claims = Counter(label: "queue_claims_total")
    /// Claims given back because their answer could not be delivered.
    static let returned = Counter(label: "queue_claims_returned_total")
    /// Claims that were looked at because they were not renewed in time.
    static let expired = Counter(label: "queue_claims_expired_total")
    /// Deadlines that passed and were handled.
    static let deadlines = Counter(label: "queue_deadlines_total")
    /// Workers that wait for work at this process.
    static let waiting = Gauge(label: "queue_waiting_workers")
}
