// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import Synchronization
import WorkerKit

/// Turns signals into facts that the worker's parts wait for.
public final class StopControl: Sendable {
    let draining = Latch<Bool>()
    let stopping = Latch<Bool>()
    let abandoning = Latch<Bool>()
    private let state = Mutex(StopState())
    private let onReload = Mutex<(@Sendable () -> Void)?>(nil)
    private let onEffect = Mutex<(@Sendable (String) -> Void)?>(nil)

    /// Creates a control that no signal reaches yet.
    public init() {}

    /// Takes over the process's signals. Call it first thing, before any thread exists: they inherit the blocked signals.
    public func listen() {
        signal(SIGPIPE, SIG_IGN)
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGTERM, SIGINT, SIGUSR1, SIGHUP] { sigaddset(&set, number) }
        pthread_sigmask(SIG_BLOCK, &set, nil)
        startThread(named: "signals") {
            var set = sigset_t()
            sigemptyset(&set)
            for number in [SIGTERM, SIGINT, SIGUSR1, SIGHUP] { sigaddset(&set, number) }
            while true {
                var number: Int32 = 0
                guard sigwait(&set, &number) == 0 else { continue }
                self.received(number == SIGUSR1 ? .drain : number == SIGHUP ? .reload : .terminate)
            }
        }
    }

    /// Whether no more tasks shall be taken.
    var isLeaving: Bool { stopping.value != nil || draining.value != nil }

    /// Sets what happens on a request to reopen files, and how each first signal of a kind is told.
    func observe(reload: @escaping @Sendable () -> Void, effect: @escaping @Sendable (String) -> Void) {
        onReload.withLock { $0 = reload }
        onEffect.withLock { $0 = effect }
    }

    func received(_ signal: WorkerSignal) {
        guard let effect = state.withLock({ $0.received(signal) }) else { return }
        let tell = onEffect.withLock { $0 }
        switch effect {
        case .drain:
            tell?("told to finish: taking no more tasks")
            draining.set(true)
        case .stop:
            tell?("told to stop")
            stopping.set(true)
            draining.set(true)
        case .abandon:
            tell?("told to stop again: killing the script, uploading nothing but logs")
            abandoning.set(true)
        case .reload:
            tell?("told to reload: log files and credentials")
            onReload.withLock { $0 }?()
        }
    }
}
