// SPDX-License-Identifier: MPL-2.0

import JSON
import ServiceLifecycle

/// The audit of a step as a live feed of server-sent events; it ends with the step.
actor EventFeed {
    private let store: StepStore
    private let step: Step
    private let watch: StepChanges.Watch
    private var last: Int
    private var hasBegun = false
    private var isOver = false
    private var saidSomething = ContinuousClock.now

    /// Begins after an event that the reader has seen.
    init(store: StepStore, step: Step, after last: Int) {
        self.store = store
        self.step = step
        self.last = last
        watch = store.changes.watch(step.id)
    }

    /// The next piece: events as soon as there are any, or a sign of life every 15 seconds.
    func next() async throws -> [UInt8]? {
        if !hasBegun {
            hasBegun = true
            return Array("retry: 2000\n\n".utf8)
        }
        while !isOver, !Task.isCancelled, !Task.isShuttingDownGracefully {
            // Read first: what is written after this read will be seen by the one after the next wait.
            let isFinished = try await isFinished()
            let events = try await store.events(of: step.id, after: last, limit: 200)
            if let newest = events.last {
                last = newest.sequence
                saidSomething = .now
                return Array(events.map(Self.text).joined().utf8)
            }
            if isFinished {
                isOver = true
                return Array("event: end\ndata: {}\n\n".utf8)
            }
            if ContinuousClock.now - saidSomething >= .seconds(15) {
                saidSomething = .now
                return Array(": still here\n\n".utf8)
            }
            await watch.wait(.seconds(1))
        }
        return nil
    }

    private func isFinished() async throws -> Bool {
        guard let now = try await store.find(step.uid), now.id == step.id else { return true }
        return now.state.isTerminal
    }

    private static func text(_ event: StepEvent) -> String {
        "id: \(event.sequence)\nevent: \(event.kind)\ndata: \(JSONValue.object(event.json).text())\n\n"
    }
}
