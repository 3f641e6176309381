// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc

/// Starts a named thread of its own for work that blocks.
///
/// The thread receives no signals and ends when the closure returns. A process that cannot start a thread stops.
public func startThread(named name: String, _ body: @escaping @Sendable () -> Void) {
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    pthread_attr_setstacksize(&attributes, 1 << 20)
    defer { pthread_attr_destroy(&attributes) }

    // Signals belong to the main thread's handlers: a new thread inherits this mask.
    var all = sigset_t()
    var previous = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_BLOCK, &all, &previous)
    defer { pthread_sigmask(SIG_SETMASK, &previous, nil) }

    // SAFETY: the box is retained here and released exactly once, by the thread that receives it.
    let box = Unmanaged.passRetained(ThreadBody(name: String(name.prefix(15)), run: body))
    var thread = pthread_t()
    let status = pthread_create(
        &thread,
        &attributes,
        { argument in
            guard let argument else { return nil }
            let body = Unmanaged<ThreadBody>.fromOpaque(argument).takeRetainedValue()
            clinux_name_thread(body.name)
            body.run()
            return nil
        },
        box.toOpaque()
    )
    precondition(status == 0, "cannot start the thread \(name): error \(status)")
}

private final class ThreadBody: Sendable {
    let name: String
    let run: @Sendable () -> Void

    init(name: String, run: @escaping @Sendable () -> Void) {
        self.name = name
        self.run = run
    }
}
