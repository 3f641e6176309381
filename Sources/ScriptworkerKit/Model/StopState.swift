// SPDX-License-Identifier: MPL-2.0

/// A signal the worker listens to.
enum WorkerSignal: Sendable, Hashable {
    /// SIGTERM or SIGINT.
    case terminate
    /// SIGUSR1.
    case drain
    /// SIGHUP.
    case reload
}

/// What the signals so far add up to; repeating one never does more than it says.
///
/// ```
/// working ──drain──► draining ──terminate──► stopping ──terminate──► abandoning
///    └──────────────terminate───────────────────▲
/// ```
struct StopState: Sendable {
    enum Effect: Hashable {
        /// Take no more tasks.
        case drain
        /// End the task at hand and leave.
        case stop
        /// Kill the script and upload nothing but logs.
        case abandon
        /// Open log files again and read credentials again.
        case reload
    }

    private enum Phase: Int, Comparable {
        case working, draining, stopping, abandoning
        static func < (first: Phase, second: Phase) -> Bool { first.rawValue < second.rawValue }
    }

    private var phase = Phase.working

    mutating func received(_ signal: WorkerSignal) -> Effect? {
        switch (signal, phase) {
        case (.reload, _): return .reload
        case (.drain, .working):
            phase = .draining
            return .drain
        case (.drain, _): return nil
        case (.terminate, .working), (.terminate, .draining):
            phase = .stopping
            return .stop
        case (.terminate, .stopping):
            phase = .abandoning
            return .abandon
        case (.terminate, .abandoning): return nil
        }
    }
}
