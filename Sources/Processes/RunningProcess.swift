// SPDX-License-Identifier: MPL-2.0

import CLinux
import Core
import Glibc
import Synchronization

/// A started program, watched by a thread of its own until nothing of it is left.
///
/// The thread reads the output, keeps the time limit, carries out stops and collects the exit status, so nothing here ever occupies
/// the cooperative pool. The program's number stays reserved (it is not reaped) until everything it started is gone: signals to its
/// group can therefore not hit a stranger.
public final class RunningProcess: Sendable {
    private struct State {
        var stop: ProcessLifecycle.StopRequest?
        var outcome: ProcessOutcome?
        var waiters: [CheckedContinuation<ProcessOutcome, Never>] = []
    }

    /// The program's process number, also the number of its group and session.
    public let processID: Int32
    private let request: ProcessRequest
    private let state = Mutex(State())
    private let wakeup: Int32
    private let exitDescriptor: Int32
    private let pipe: Int32

    /// Starts the program, or throws why that failed; then it is already running.
    public static func start(_ request: ProcessRequest) throws(ProcessesError) -> RunningProcess {
        var ends: [Int32] = [-1, -1]
        guard clinux_pipe_cloexec(&ends) == 0 else { throw ProcessesError(.file, "cannot make a pipe") }
        defer { close(ends[1]) }
        // A roomy pipe saves the program from waiting for us; the system may allow less.
        _ = clinux_set_pipe_size(ends[0], 1 << 20)
        _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
        let wakeup = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        let process: pid_t
        do throws(ProcessesError) {
            guard wakeup >= 0 else { throw ProcessesError(.file, "cannot make an event descriptor") }
            process = try Spawn.start(request, output: ends[1])
        } catch {
            close(ends[0])
            if wakeup >= 0 { close(wakeup) }
            throw error
        }
        let running = RunningProcess(request, process: process, pipe: ends[0], wakeup: wakeup)
        startThread(named: "process") { running.watch() }
        return running
    }

    private init(_ request: ProcessRequest, process: pid_t, pipe: Int32, wakeup: Int32) {
        self.request = request
        processID = process
        self.pipe = pipe
        self.wakeup = wakeup
        exitDescriptor = clinux_pidfd_open(process)
    }

    deinit {
        close(pipe)
        close(wakeup)
        if exitDescriptor >= 0 { close(exitDescriptor) }
    }

    /// Asks the program and everything it started to end, and kills what has not after the grace time.
    public func stop() { request(.gracefully) }

    /// Kills the program and everything it started at once.
    public func kill() { request(.atOnce) }

    /// Waits until the program, everything it started and its output are over.
    public func outcome() async -> ProcessOutcome {
        await withCheckedContinuation { continuation in
            let outcome = state.withLock { state in
                if state.outcome == nil { state.waiters.append(continuation) }
                return state.outcome
            }
            if let outcome { continuation.resume(returning: outcome) }
        }
    }

    private func request(_ stop: ProcessLifecycle.StopRequest) {
        state.withLock { state in
            if stop.rawValue > state.stop?.rawValue ?? -1 { state.stop = stop }
        }
        var one: UInt64 = 1
        _ = write(wakeup, &one, 8)
    }

    // MARK: - The watching thread

    private func watch() {
        let clock = ContinuousClock()
        let start = clock.now
        var lifecycle = ProcessLifecycle(
            limit: request.timeLimit,
            grace: request.stopGrace,
            drain: request.drainTimeout
        )
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
        defer { buffer.deallocate() }
        var status: ProcessStatus?
        var ended: Duration?
        var outputClosed = false
        var received = 0
        loop: while true {
            let before = received
            if !outputClosed { outputClosed = readOutput(into: buffer, &received) }
            if status == nil, let now = exitStatus() {
                status = now
                ended = clock.now - start
                // What was written before the exit is in the pipe by now.
                if !outputClosed { outputClosed = readOutput(into: buffer, &received) }
            }
            let action = lifecycle.next(
                .init(
                    now: clock.now - start,
                    hasExited: status != nil,
                    outputClosed: outputClosed,
                    stop: state.withLock { $0.stop },
                    hasDescendants: { !self.descendants().isEmpty }
                )
            )
            switch action {
            case .terminate:
                signalEverything(SIGTERM)
            case .kill:
                signalEverything(SIGKILL)
                sleepUntil(clock.now - start + .milliseconds(10), clock.now - start, exited: true, outputClosed)
            case .wait where received > before && !outputClosed:
                // A program that prints much fills the pipe meanwhile; being woken for every line of it costs more than all else.
                usleep(500)
            case .wait(let until):
                sleepUntil(until, clock.now - start, exited: status != nil, outputClosed)
            case .finish:
                break loop
            }
        }
        finish(
            ProcessOutcome(
                status: status ?? .signalled(SIGKILL),
                ending: lifecycle.ending,
                hadLeftovers: lifecycle.hadLeftovers,
                hasSurvivors: lifecycle.hasSurvivors,
                duration: ended ?? clock.now - start
            )
        )
    }

    private func descendants() -> [ProcessTree.Entry] {
        ProcessTree.descendants(of: processID, orphans: request.orphans)
    }

    private func signalEverything(_ signal: Int32) {
        let others = descendants()
        Glibc.kill(-processID, signal)
        for entry in others { ProcessTree.send(signal, to: entry) }
    }

    /// Takes what is in the pipe, but not for ever; returns whether its end was reached.
    private func readOutput(into buffer: UnsafeMutableRawBufferPointer, _ received: inout Int) -> Bool {
        for _ in 0..<16 {
            let count = read(pipe, buffer.baseAddress, buffer.count)
            if count > 0 {
                received += count
                request.output.append(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            } else if count == 0 {
                return true
            } else if errno != EINTR {
                return false
            }
        }
        return false
    }

    /// Looks whether the program has ended, without reaping it.
    private func exitStatus() -> ProcessStatus? {
        var info = siginfo_t()
        guard waitid(P_PID, id_t(processID), &info, WEXITED | WNOHANG | WNOWAIT) == 0, info.si_signo == SIGCHLD
        else { return nil }
        let value = info._sifields._sigchld.si_status
        return info.si_code == CLD_EXITED ? .exited(value) : .signalled(value)
    }

    private func sleepUntil(_ until: Duration?, _ now: Duration, exited: Bool, _ outputClosed: Bool) {
        var descriptors = [
            pollfd(fd: wakeup, events: Int16(POLLIN), revents: 0),
            // A negative number is skipped by poll: an end already seen would otherwise wake us for ever.
            pollfd(fd: exited ? -1 : exitDescriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: outputClosed ? -1 : pipe, events: Int16(POLLIN), revents: 0),
        ]
        var timeout = until.map { max(0, ($0 - now) / .milliseconds(1)).rounded(.up) } ?? -1
        // Without a descriptor for the exit (an old kernel) look often instead.
        if exitDescriptor < 0, !exited { timeout = timeout < 0 ? 20 : min(timeout, 20) }
        poll(&descriptors, nfds_t(descriptors.count), Int32(min(timeout, 3_600_000)))
        var count: UInt64 = 0
        _ = read(wakeup, &count, 8)
    }

    private func finish(_ outcome: ProcessOutcome) {
        ProcessTree.children.withLock { children in
            // One that not even SIGKILL could end stays registered and unreaped: waiting for it would block us with it.
            if waitpid(processID, nil, WNOHANG) == processID { children.remove(processID) }
        }
        let waiters = state.withLock { state in
            state.outcome = outcome
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters { waiter.resume(returning: outcome) }
    }
}
