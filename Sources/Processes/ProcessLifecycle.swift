// SPDX-License-Identifier: MPL-2.0

/// Decides what to do next about a program and everything it started.
///
/// ```
/// running ──exit──► draining ──EOF or time──► (something left?) ──no──► flushing ──► finished
///    │ limit, stop                                   │ yes                  ▲
///    └───────────────► terminating ◄─────────────────┘                      │
///                          │ grace over        everything gone              │
///                          └────► killing ──────────────────────────────────┘
/// ```
/// Time is whatever monotonic reading the caller passes in; nothing here touches a process.
struct ProcessLifecycle {
    enum Action: Equatable {
        /// Nothing to do before the given reading, unless something happens.
        case wait(until: Duration?)
        /// Ask everything to end.
        case terminate
        /// End everything.
        case kill
        /// The program, what it started and its output are over.
        case finish
    }

    /// What is known at one moment.
    struct View {
        var now: Duration
        var hasExited: Bool
        var outputClosed: Bool
        var stop: StopRequest?
        /// Whether anything the program started is still there; asked only when it matters, since it costs a look at every process.
        var hasDescendants: () -> Bool
    }

    enum StopRequest: Int {
        case gracefully, atOnce
    }

    private enum Phase {
        case running
        case draining(until: Duration)
        case terminating(killAt: Duration)
        case killing(giveUpAt: Duration)
        case flushing(until: Duration)
        case finished
    }

    private(set) var ending = ProcessOutcome.Ending.natural
    private(set) var hadLeftovers = false
    private(set) var hasSurvivors = false
    private var phase = Phase.running
    private let limit: Duration?
    private let grace: Duration
    private let drain: Duration
    private static let look: Duration = .milliseconds(10)
    private static let patience: Duration = .seconds(10)

    init(limit: Duration?, grace: Duration, drain: Duration) {
        self.limit = limit
        self.grace = grace
        self.drain = drain
    }

    mutating func next(_ view: View) -> Action {
        switch phase {
        case .running: running(view)
        case .draining(let until): draining(until, view)
        case .terminating(let killAt): terminating(killAt, view)
        case .killing(let giveUpAt): killing(giveUpAt, view)
        case .flushing(let until): flushing(until, view)
        case .finished: .finish
        }
    }

    private mutating func running(_ view: View) -> Action {
        if view.hasExited {
            let until = view.now + drain
            phase = .draining(until: until)
            return draining(until, view)
        }
        if let stop = view.stop {
            ending = .stopped
            return stopEverything(stop, view.now)
        }
        if let limit, view.now >= limit {
            ending = .timeLimit
            return stopEverything(.gracefully, view.now)
        }
        return .wait(until: limit)
    }

    private mutating func draining(_ until: Duration, _ view: View) -> Action {
        guard view.outputClosed || view.now >= until || view.stop != nil else { return .wait(until: until) }
        guard view.hasDescendants() else { return flush(view, patience: .zero) }
        hadLeftovers = true
        return stopEverything(view.stop ?? .gracefully, view.now)
    }

    private mutating func stopEverything(_ stop: StopRequest, _ now: Duration) -> Action {
        switch stop {
        case .gracefully:
            phase = .terminating(killAt: now + grace)
            return .terminate
        case .atOnce:
            phase = .killing(giveUpAt: now + Self.patience)
            return .kill
        }
    }

    private mutating func terminating(_ killAt: Duration, _ view: View) -> Action {
        if view.hasExited, !view.hasDescendants() { return flush(view, patience: drain) }
        if view.now >= killAt || view.stop == .atOnce { return stopEverything(.atOnce, view.now) }
        return .wait(until: min(killAt, view.now + Self.look))
    }

    private mutating func killing(_ giveUpAt: Duration, _ view: View) -> Action {
        if view.hasExited, !view.hasDescendants() { return flush(view, patience: drain) }
        guard view.now < giveUpAt else {
            hasSurvivors = true
            return flush(view, patience: .zero)
        }
        // What was forked between looking and signalling is caught by the next round.
        return .kill
    }

    private mutating func flush(_ view: View, patience: Duration) -> Action {
        let until = view.now + patience
        phase = .flushing(until: until)
        return flushing(until, view)
    }

    private mutating func flushing(_ until: Duration, _ view: View) -> Action {
        guard view.outputClosed || view.now >= until else { return .wait(until: until) }
        phase = .finished
        return .finish
    }
}
