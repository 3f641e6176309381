// SPDX-License-Identifier: MPL-2.0

import Core
import Synchronization

/// Bounds how many calls are made at a time, altogether and to one host, so that a host that hangs holds up itself alone.
///
/// Whoever waits for a turn keeps a place among the pipelines that are looked at. At a host whose calls take long nobody
/// waits, and elsewhere nobody for long: they come back later.
final class HostGate: Sendable {
    /// What is known of a host while calls to it are under way, or while the last one took long.
    private struct Host {
        /// When the calls began that are under way.
        var begun: [Int: ContinuousClock.Instant] = [:]
        /// Whether the call that ended last took long.
        var wasSlow = false
    }

    private struct Waiter {
        let id: Int
        let host: String
        let signal: Signal
    }

    private struct State {
        var hosts: [String: Host] = [:]
        var total = 0
        var waiting: [Waiter] = []
        var lastID = 0
    }

    private let state = Mutex(State())
    private let limit: Int
    private let limitPerHost: Int
    private let patience: Duration

    /// Lets so many calls through at a time; one that takes longer than `patience` takes long.
    init(limit: Int, limitPerHost: Int = 8, patience: Duration = .seconds(1)) {
        self.limit = limit
        self.limitPerHost = limitPerHost
        self.patience = patience
    }

    /// Makes a call when its turn has come; nil, and it is not made, where that is not soon.
    func call<Result: Sendable>(_ host: String, _ body: () async -> Result) async -> Result? {
        guard let id = await enter(host) else { return nil }
        let result = await body()
        leave(host, id)
        return result
    }

    private func enter(_ host: String) async -> Int? {
        let now = ContinuousClock.now
        let (id, signal) = state.withLock { state -> (Int?, Signal?) in
            state.lastID += 1
            let id = state.lastID
            if hasRoom(host, state) {
                admit(id, host, now, &state)
                return (id, nil)
            }
            if isSlow(host, now, state) { return (nil, nil) }
            let waiter = Waiter(id: id, host: host, signal: Signal())
            state.waiting.append(waiter)
            return (id, waiter.signal)
        }
        guard let id, let signal, await !signal.wait(timeout: patience) else { return id }
        return state.withLock { state in
            // Its turn may have come in this very moment.
            guard let index = state.waiting.firstIndex(where: { $0.id == id }) else { return id }
            state.waiting.remove(at: index)
            return nil
        }
    }

    private func hasRoom(_ host: String, _ state: State) -> Bool {
        state.total < limit && state.hosts[host]?.begun.count ?? 0 < limitPerHost
    }

    /// Whether the calls to a host take long: the last one did, or one that is under way does already.
    private func isSlow(_ name: String, _ now: ContinuousClock.Instant, _ state: State) -> Bool {
        guard let host = state.hosts[name] else { return false }
        return host.wasSlow || host.begun.values.contains { now - $0 > patience }
    }

    private func admit(_ id: Int, _ host: String, _ now: ContinuousClock.Instant, _ state: inout State) {
        state.total += 1
        state.hosts[host, default: Host()].begun[id] = now
    }

    private func leave(_ host: String, _ id: Int) {
        let now = ContinuousClock.now
        let next = state.withLock { state -> Signal? in
            state.total -= 1
            if let begun = state.hosts[host]?.begun.removeValue(forKey: id) {
                state.hosts[host]?.wasSlow = now - begun > patience
            }
            if let known = state.hosts[host], known.begun.isEmpty, !known.wasSlow { state.hosts[host] = nil }
            guard let index = state.waiting.firstIndex(where: { hasRoom($0.host, state) }) else { return nil }
            let waiter = state.waiting.remove(at: index)
            admit(waiter.id, waiter.host, now, &state)
            return waiter.signal
        }
        next?.notify()
    }
}
