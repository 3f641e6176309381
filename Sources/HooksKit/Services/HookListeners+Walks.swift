// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Pulse

/// Looking at the queues of all hooks: at the start, after every connection, and when listeners come or go.
extension HookListeners {
    func askForWalk(makingAgain: Bool) {
        state.withLock { state in
            state.mustWalk = true
            if makingAgain { state.mustMakeAgain = true }
        }
        walks.notify()
    }

    func walk() async {
        var failures = 0
        while !Task.isCancelled {
            let (mustWalk, mustMakeAgain, connection) = state.withLock { state in
                defer {
                    state.mustWalk = false
                    state.mustMakeAgain = false
                }
                return (state.mustWalk, state.mustMakeAgain, state.connection)
            }
            guard mustWalk, connection > 0 else {
                _ = await walks.wait(timeout: .seconds(15))
                // What the broker refused to deliver from is asked for again now and then.
                if troubled.withLock({ !$0.isEmpty }) { state.withLock { $0.mustWalk = true } }
                continue
            }
            do {
                try await walkOnce(makingAgain: mustMakeAgain, connection)
                state.withLock { $0.hasWalked = true }
                failures = 0
            } catch {
                if Task.isCancelled { return }
                failures += 1
                Logger.current.log(
                    level: failures == 1 ? .warning : .debug,
                    "hook queues are not all consumed yet",
                    metadata: ["error": "\(error)"]
                )
                askForWalk(makingAgain: mustMakeAgain)
                try? await Task.sleep(for: .seconds(1))
            }
        }
    }

    /// Looks at the queues of all hooks, page by page: what falls to this listener is consumed, after it was made again if
    /// that is asked for or it was not consumed before.
    private func walkOnce(makingAgain: Bool, _ connection: Int) async throws {
        var last: HookName?
        var seen = 0
        while true {
            let page = try await store.queues(after: last, limit: 500)
            let (mine, others) = state.withLock { state in
                (page.filter { state.share.includes($0.name) }, page.filter { !state.share.includes($0.name) })
            }
            for queue in others where state.withLock({ $0.consumed.contains(queue.queue) }) { settle(queue) }
            // One that is out of step is being set right, and will be told of.
            let unsure = mine.filter { queue in
                queue.isInStep && (makingAgain || !state.withLock { $0.consumed.contains(queue.queue) })
            }
            try await makeAgain(unsure)
            try await store.recheck(unsure)
            seen += page.count
            // A newer connection wants its own walk.
            guard state.withLock({ $0.connection == connection }) else { return }
            guard let next = page.last?.name, page.count == 500 else { break }
            last = next
        }
        Logger.current.debug("hook queues looked over", metadata: ["hooks": "\(seen)"])
    }

    private func makeAgain(_ queues: [ListenerStore.Queue]) async throws {
        try await withThrowingTaskGroup(of: ListenerStore.Queue?.self) { tasks in
            var waiting = queues[...]
            var wrong: [HookName] = []
            func addNext() {
                guard let queue = waiting.popFirst() else { return }
                tasks.addTask {
                    guard queue.queue == self.reconciler.queue(of: queue.name).name else { return queue }
                    let problem = try await self.problemMakingAgain(queue)
                    self.settle(queue)
                    return problem == nil || problem?.code == .timeout ? nil : queue
                }
            }
            for _ in 0..<QueueReconciler.walking { addNext() }
            while let outcome = try await tasks.next() {
                if let outcome { wrong.append(outcome.name) }
                addNext()
            }
            // Somebody sets them right by the usual way, and notes what the broker refuses.
            if !wrong.isEmpty { try await store.noteVanished(wrong) }
        }
    }

    /// Makes one queue again; answers what the broker said against it, or that it did not answer.
    ///
    /// Only what concerns all queues is thrown: that the broker is away.
    private func problemMakingAgain(_ queue: ListenerStore.Queue) async throws -> PulseError? {
        do {
            try await withTimeout(QueueReconciler.limit) { try await self.reconciler.makeAgain(queue) }
            return nil
        } catch let error as PulseError {
            guard error.isRefusal || error.code == .timeout else { throw error }
            return error
        } catch {
            try Task.checkCancellation()
            Logger.current.warning("the broker does not answer for a queue", metadata: ["hook": "\(queue.name)"])
            return PulseError(.timeout, "\(error)")
        }
    }
}
