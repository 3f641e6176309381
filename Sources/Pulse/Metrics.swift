// SPDX-License-Identifier: MPL-2.0

import Metrics

/// What a connection counts.
struct PulseMetrics: Sendable {
    let published = Counter(label: "pulse_published_total")
    let confirmed = Counter(label: "pulse_confirmed_total")
    let returned = Counter(label: "pulse_returned_total")
    let refused = Counter(label: "pulse_nacked_total")
    let consumed = Counter(label: "pulse_consumed_total")
    let acked = Counter(label: "pulse_acked_total")
    let requeued = Counter(label: "pulse_requeued_total")
    let rejected = Counter(label: "pulse_rejected_total")
    let reconnects = Counter(label: "pulse_reconnects_total")
}
