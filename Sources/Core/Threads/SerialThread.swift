// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// An executor whose jobs run one after another on a thread of its own.
///
/// Give it to an actor that calls a blocking C library, so that no thread of the shared pool ever blocks.
public final class SerialThread: SerialExecutor {
    private let shared: Shared

    /// Starts the thread; it ends after the executor is released.
    public init(name: String) {
        let shared = Shared()
        self.shared = shared
        startThread(named: name) { shared.loop() }
    }

    deinit {
        shared.stop()
    }

    /// Adds a job behind those that wait already.
    public func enqueue(_ job: consuming ExecutorJob) {
        shared.add(UnownedJob(job), asUnownedSerialExecutor())
    }

    /// The reference that an actor returns as its executor.
    public func asUnownedSerialExecutor() -> UnownedSerialExecutor {
        UnownedSerialExecutor(ordinary: self)
    }
}

private final class Shared: Sendable {
    private struct Mailbox {
        var jobs: [(UnownedJob, UnownedSerialExecutor)] = []
        var isStopped = false
    }

    private let mailbox = Mutex(Mailbox())
    private let event = EventFD()

    func add(_ job: UnownedJob, _ executor: UnownedSerialExecutor) {
        let wasEmpty = mailbox.withLock { mailbox in
            mailbox.jobs.append((job, executor))
            return mailbox.jobs.count == 1
        }
        if wasEmpty { event.signal() }
    }

    func stop() {
        mailbox.withLock { $0.isStopped = true }
        event.signal()
    }

    func loop() {
        while true {
            event.wait()
            let (jobs, isStopped) = mailbox.withLock { mailbox in
                defer { mailbox.jobs = [] }
                return (mailbox.jobs, mailbox.isStopped)
            }
            for (job, executor) in jobs { job.runSynchronously(on: executor) }
            if isStopped, jobs.isEmpty { return }
            if isStopped { event.signal() }
        }
    }
}
