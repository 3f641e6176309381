// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc
import Synchronization

/// One thread that waits for many sockets and timers, so that tasks can wait without blocking a thread.
public final class Reactor: Sendable {
    /// The process's reactor; its thread starts with the first use.
    public static let shared = Reactor(name: "reactor")

    /// What a task may wait for on a descriptor.
    public enum Interest: Sendable {
        /// Bytes or an end of file can be read.
        case readable
        /// Bytes can be written.
        case writable
        /// Either of both.
        case either
    }

    /// How a wait ended.
    public enum Outcome: Sendable {
        /// The descriptor is ready, or broken: the next call on it will tell.
        case ready
        /// The deadline passed first.
        case timedOut
        /// The waiting task was cancelled.
        case cancelled
    }

    private struct State {
        var watches: [UInt64: Watch] = [:]
        var actions: [UInt64: @Sendable () -> Void] = [:]
        var heap = TimerHeap()
        var nextKey: UInt64 = 1
    }

    private let state = Mutex(State())
    private let epoll: Int32
    private let wakeUp = EventFD()

    private init(name: String) {
        epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
        precondition(epoll >= 0, "cannot create an epoll descriptor: error \(errno)")
        _ = clinux_epoll_control(epoll, EPOLL_CTL_ADD, wakeUp.descriptor, EPOLLIN.rawValue, 0)
        startThread(named: name) { self.loop() }
    }

    // MARK: Timers

    /// A timer that can be taken back.
    public struct Timer: Sendable {
        fileprivate let key: UInt64
    }

    /// Calls a short action on the reactor's thread after some time.
    @discardableResult
    public func after(_ delay: Duration, _ action: @escaping @Sendable () -> Void) -> Timer {
        let deadline = Self.now() + UInt64(max(0, delay.seconds) * 1e9)
        let (key, isFirst) = state.withLock { state in
            let key = state.nextKey
            state.nextKey += 1
            state.actions[key] = action
            return (key, state.heap.insert(deadline, key))
        }
        if isFirst { wakeUp.signal() }
        return Timer(key: key)
    }

    /// Takes a timer back; without effect once it has fired.
    public func cancel(_ timer: Timer) {
        state.withLock { state in
            guard state.actions.removeValue(forKey: timer.key) != nil else { return }
            if state.heap.count > 2 * state.actions.count + 64 {
                let live = state.actions
                state.heap.removeAll { live[$0] == nil }
            }
        }
    }

    // MARK: Descriptors

    /// Starts watching a descriptor; call ``Watch/close()`` before the descriptor itself is closed.
    public func watch(_ descriptor: Int32) -> Watch {
        let watch = state.withLock { state in
            let key = state.nextKey
            state.nextKey += 1
            let watch = Watch(reactor: self, descriptor: descriptor, key: key)
            state.watches[key] = watch
            return watch
        }
        _ = clinux_epoll_control(epoll, EPOLL_CTL_ADD, descriptor, EPOLLONESHOT.rawValue, watch.key)
        return watch
    }

    fileprivate func arm(_ watch: Watch, _ interest: Interest) {
        let events: UInt32 =
            switch interest {
            case .readable: EPOLLIN.rawValue
            case .writable: EPOLLOUT.rawValue
            case .either: EPOLLIN.rawValue | EPOLLOUT.rawValue
            }
        let flags = events | EPOLLRDHUP.rawValue | EPOLLONESHOT.rawValue
        if clinux_epoll_control(epoll, EPOLL_CTL_MOD, watch.descriptor, flags, watch.key) != 0 {
            watch.finish(.ready)
        }
    }

    fileprivate func remove(_ watch: Watch) {
        state.withLock { _ = $0.watches.removeValue(forKey: watch.key) }
        _ = clinux_epoll_control(epoll, EPOLL_CTL_DEL, watch.descriptor, 0, watch.key)
    }

    // MARK: The thread

    private static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    private func loop() {
        var events = [epoll_event](repeating: epoll_event(), count: 64)
        while true {
            let next = state.withLock { $0.heap.first }
            var timeout: Int32 = -1
            if let next {
                let now = Self.now()
                timeout = next <= now ? 0 : Int32(min((next - now + 999_999) / 1_000_000, 3_600_000))
            }
            let count = epoll_wait(epoll, &events, 64, timeout)
            for index in 0..<max(0, Int(count)) {
                let key = clinux_epoll_key(&events[index])
                if key == 0 {
                    wakeUp.drain()
                } else {
                    state.withLock { $0.watches[key] }?.finish(.ready)
                }
            }
            fireTimers()
        }
    }

    private func fireTimers() {
        while true {
            let action: (@Sendable () -> Void)?? = state.withLock { state in
                guard let first = state.heap.first, first <= Self.now(), let key = state.heap.popFirst() else {
                    return .none
                }
                return .some(state.actions.removeValue(forKey: key))
            }
            guard let action else { return }
            action?()
        }
    }
}

/// A descriptor in the reactor's care; one task at a time may wait on it.
public final class Watch: Sendable {
    private enum State {
        case idle
        case waiting(UInt64, CheckedContinuation<Reactor.Outcome, Never>, Reactor.Timer?)
        case cancelled(UInt64)
        case closed
    }

    fileprivate let descriptor: Int32
    fileprivate let key: UInt64
    private let reactor: Reactor
    private let state = Mutex((turn: UInt64(0), phase: State.idle))

    fileprivate init(reactor: Reactor, descriptor: Int32, key: UInt64) {
        self.reactor = reactor
        self.descriptor = descriptor
        self.key = key
    }

    /// Waits until the descriptor is ready or the time is over, even if the task is cancelled.
    public func waitUncancelled(for interest: Reactor.Interest, timeout: Duration) async -> Reactor.Outcome {
        let turn = state.withLock { state in
            state.turn += 1
            return state.turn
        }
        return await withCheckedContinuation { continuation in
            park(continuation, turn, interest, timeout)
        }
    }

    /// Waits until the descriptor is ready, the time is over or the task is cancelled.
    public func wait(for interest: Reactor.Interest, timeout: Duration? = nil) async -> Reactor.Outcome {
        let turn = state.withLock { state in
            state.turn += 1
            return state.turn
        }
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                park(continuation, turn, interest, timeout)
            }
        } onCancel: {
            cancel(turn: turn)
        }
    }

    private func park(
        _ continuation: CheckedContinuation<Reactor.Outcome, Never>,
        _ turn: UInt64,
        _ interest: Reactor.Interest,
        _ timeout: Duration?
    ) {
        let immediate: Reactor.Outcome? = state.withLock { state in
            switch state.phase {
            case .closed: return .ready
            case .cancelled(turn):
                state.phase = .idle
                return .cancelled
            case .idle, .cancelled:
                // Set under the lock: a timer that fired before somebody waits would be lost, and the wait endless.
                let timer = timeout.map { limit in
                    reactor.after(limit) { [weak self] in self?.finish(.timedOut, turn: turn) }
                }
                state.phase = .waiting(turn, continuation, timer)
                return nil
            case .waiting: preconditionFailure("two tasks wait on one descriptor")
            }
        }
        guard let immediate else {
            reactor.arm(self, interest)
            return
        }
        continuation.resume(returning: immediate)
    }

    /// Stops watching and wakes the waiting task.
    public func close() {
        reactor.remove(self)
        finish(.ready, closing: true)
    }

    fileprivate func finish(_ outcome: Reactor.Outcome, turn: UInt64? = nil, closing: Bool = false) {
        let waiter: (CheckedContinuation<Reactor.Outcome, Never>, Reactor.Timer?)? = state.withLock { state in
            guard case .waiting(let current, let continuation, let timer) = state.phase, turn ?? current == current
            else {
                if closing { state.phase = .closed }
                return nil
            }
            state.phase = closing ? .closed : .idle
            return (continuation, timer)
        }
        guard let (continuation, timer) = waiter else { return }
        if let timer { reactor.cancel(timer) }
        continuation.resume(returning: outcome)
    }

    private func cancel(turn: UInt64) {
        let isWaiting = state.withLock { state in
            switch state.phase {
            case .waiting(turn, _, _): return true
            case .idle where state.turn == turn:
                state.phase = .cancelled(turn)
                return false
            default: return false
            }
        }
        if isWaiting { finish(.cancelled, turn: turn) }
    }
}
