// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import JSONSchema
import Logging
import Metrics
import Postgres
package import Pulse
package import Schedules
import Synchronization
import Taskcluster

/// Turns deliveries from the bus into fires, durably, before they are acknowledged.
package final class DeliveryIntake: Sendable {
    private let store: ListenerStore
    private let fires: FireStore
    private let programs: HookPrograms
    private let dispatcher: FireDispatcher
    private let now: @Sendable () -> Timestamp
    /// Names this run of the process in the fires it writes; see ``DeliveryIdentity``.
    private let consumer = Slugid.make()
    private let discarded = Mutex<[HookName: Int]>([:])

    package init(
        store: ListenerStore,
        fires: FireStore,
        programs: HookPrograms,
        dispatcher: FireDispatcher,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        self.store = store
        self.fires = fires
        self.programs = programs
        self.dispatcher = dispatcher
        self.now = now
    }

    /// Accepts deliveries of a hook's queue; when this returns, they may be acknowledged.
    ///
    /// - Throws: What makes a single delivery unusable (no JSON), or the database's refusal. Nothing is accepted then.
    package func accept(_ deliveries: [PulseDelivery], for name: HookName, queue: String) async throws {
        let payloads = try deliveries.map { try JSONValue(parsing: $0.body) }
        // Keys for this attempt: if the outcome of a commit is unknown, trying again with them changes nothing.
        let keys = deliveries.map { _ in Slugid.make() }
        var attempt = 1
        while true {
            do {
                try await acceptOnce(deliveries, payloads, keys, for: name, queue: queue)
                return
            } catch let error as PostgresError where error.isConnectionFailure || error.isRetriable {
                if attempt == 1 {
                    Logger.current.error("messages wait for the database", metadata: ["error": "\(error)"])
                }
                attempt += 1
                try await Task.sleep(for: RetryPolicy.reconnect.delay(before: attempt))
            }
        }
    }

    private func acceptOnce(
        _ deliveries: [PulseDelivery],
        _ payloads: [JSONValue],
        _ keys: [String],
        for name: HookName,
        queue: String
    ) async throws {
        let places = dispatcher.reserve(deliveries.count)
        var accepted: [Fire] = []
        defer { dispatcher.submit(accepted, reserved: places) }
        let result = try await store.pool.transaction { connection in
            var drafts: [FireDraft] = []
            let program: HookProgram?
            var broken: FireFailure?
            do { program = try await programs.program(of: name, on: connection) } catch let failure as FireFailure {
                program = nil
                broken = failure
            }
            // A hook that is gone fires no more; its messages go with it.
            guard program != nil || broken != nil else { return (fires: [Fire](), drafts: drafts) }
            for (index, delivery) in deliveries.enumerated() {
                if let problem = problem(payloads[index], program) {
                    discard(delivery, name, problem)
                    continue
                }
                let hash = DeliveryIdentity.contentHash(
                    exchange: delivery.exchange,
                    routingKey: delivery.routingKey,
                    cc: delivery.cc,
                    body: delivery.body
                )
                if let id = delivery.messageID {
                    let key = DeliveryIdentity.key(messageID: id, contentHash: hash, of: name)
                    drafts.append(draft(delivery, payloads[index], key, name, program, broken, nil))
                    continue
                }
                if delivery.redelivered,
                    try await store.absorb(queue: queue, contentHash: hash, on: connection)
                {
                    Counter(label: "hooks_redeliveries_absorbed_total").increment()
                    continue
                }
                let trace = DeliveryTrace(queue: queue, consumer: consumer, contentHash: hash)
                let key = "delivery \(keys[index])"
                drafts.append(draft(delivery, payloads[index], key, name, program, broken, trace))
            }
            return (fires: try await fires.accept(drafts, slots: places, on: connection), drafts: drafts)
        }
        accepted = result.fires
        FiringLog.settled(result.drafts)
        if result.drafts.count > accepted.count { dispatcher.lookNow() }
    }

    private func draft(
        _ delivery: PulseDelivery,
        _ payload: JSONValue,
        _ key: String,
        _ name: HookName,
        _ program: HookProgram?,
        _ broken: FireFailure?,
        _ trace: DeliveryTrace?
    ) -> FireDraft {
        let extras: JSONObject = [
            "payload": payload,
            "exchange": JSONValue(delivery.exchange),
            "routingKey": JSONValue(delivery.routingKey),
        ]
        let instant = now()
        let taskID = Slugid.make()
        var rendering = Rendering.declined
        if let broken { rendering = .failed(broken) }
        if let program {
            rendering = FiringContext(firedBy: .pulseMessage, taskID: taskID, created: instant, extras: extras)
                .render(program.template)
        }
        return FireDraft(
            name: name,
            taskID: taskID,
            firedBy: .pulseMessage,
            context: extras,
            created: instant,
            started: instant,
            rendering: rendering,
            deduplicationKey: key,
            delivery: trace
        )
    }

    private func problem(_ payload: JSONValue, _ program: HookProgram?) -> String? {
        guard let problems = program?.schema.validate(payload), !problems.isEmpty else { return nil }
        return problems.map { $0.described() }.joined(separator: "; ")
    }

    private func discard(_ delivery: PulseDelivery, _ name: HookName, _ problem: String) {
        Counter(label: "hooks_messages_discarded_total", dimensions: [("reason", "triggerSchema")]).increment()
        let count = discarded.withLock { discarded in
            discarded[name, default: 0] += 1
            return discarded[name, default: 0]
        }
        guard count == 1 || count % 100 == 0 else { return }
        Logger.current.notice(
            "hook-pulse-message-discarded",
            metadata: [
                "hookGroupId": "\(name.group)", "hookId": "\(name.hook)", "exchange": "\(delivery.exchange)",
                "routingKey": "\(delivery.routingKey)", "reason": "triggerSchema", "validationError": "\(problem)",
                "discardedCount": "\(count)",
            ]
        )
    }

    /// Settles fires whose acknowledgements have had time to arrive, for as long as the broker answers.
    func keepSettling() async {
        while !Task.isCancelled {
            do { try await Task.sleep(for: .seconds(5)) } catch { return }
            do { try await store.settle(consumer: consumer) } catch {
                Logger.current.debug("fires were not settled", metadata: ["error": "\(error)"])
            }
        }
    }
}
