// SPDX-License-Identifier: MPL-2.0

import CLinux
import Core
import Glibc
import Synchronization
import WorkerKit

/// Where the signal handlers write to.
private let signalPipe = Atomic<Int32>(-1)

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

    /// Takes over the process's signals; call it first thing.
    ///
    /// Handlers rather than a blocked mask, because the runtime's main thread waits with every signal unblocked.
    public func listen() {
        signal(SIGPIPE, SIG_IGN)
        var ends: [Int32] = [-1, -1]
        guard clinux_pipe_cloexec(&ends) == 0 else { return }
        signalPipe.store(ends[1], ordering: .releasing)
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { number in
            // Only what is safe in a handler: one write, and the interrupted code's error number kept.
            let saved = errno
            var byte = UInt8(truncatingIfNeeded: number)
            _ = write(signalPipe.load(ordering: .acquiring), &byte, 1)
            errno = saved
        }
        action.sa_flags = SA_RESTART
        for number in [SIGTERM, SIGINT, SIGUSR1, SIGHUP] { sigaction(number, &action, nil) }
        let source = ends[0]
        startThread(named: "signals") {
            var byte: UInt8 = 0
            while true {
                guard read(source, &byte, 1) == 1 else { continue }
                let number = Int32(byte)
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
