// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// Bounds how many calls are made at a time, altogether and to one host, so that a host that hangs holds up itself alone.
final class HostGate: Sendable {
    private struct State {
        var underWay: [String: Int] = [:]
        var total = 0
        var waiting: [(host: String, continuation: CheckedContinuation<Void, Never>)] = []
    }

    private let state = Mutex(State())
    private let limit: Int
    private let limitPerHost: Int

    init(limit: Int = 64, limitPerHost: Int = 8) {
        self.limit = limit
        self.limitPerHost = limitPerHost
    }

    /// Makes a call when its turn has come.
    func call<Result: Sendable>(_ host: String, _ body: () async -> Result) async -> Result {
        await enter(host)
        let result = await body()
        leave(host)
        return result
    }

    private func enter(_ host: String) async {
        await withCheckedContinuation { continuation in
            let mayEnter = state.withLock { state in
                guard hasRoom(host, state) else {
                    state.waiting.append((host, continuation))
                    return false
                }
                state.total += 1
                state.underWay[host, default: 0] += 1
                return true
            }
            if mayEnter { continuation.resume() }
        }
    }

    private func hasRoom(_ host: String, _ state: State) -> Bool {
        state.total < limit && state.underWay[host, default: 0] < limitPerHost
    }

    private func leave(_ host: String) {
        let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
            state.total -= 1
            state.underWay[host, default: 1] -= 1
            if state.underWay[host] == 0 { state.underWay[host] = nil }
            guard let index = state.waiting.firstIndex(where: { hasRoom($0.host, state) }) else { return nil }
            let waiter = state.waiting.remove(at: index)
            state.total += 1
            state.underWay[waiter.host, default: 0] += 1
            return waiter.continuation
        }
        next?.resume()
    }
}
