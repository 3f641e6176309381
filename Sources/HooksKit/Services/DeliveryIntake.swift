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
///
/// What fires nothing is counted and kept for a look at it; what nobody could ever use becomes a dead letter.
package final class DeliveryIntake: Sendable {
    private let store: ListenerStore
    private let unfired: UnfiredStore
    private let letters: DeadLetterStore
    private let fires: FireStore
    private let programs: HookPrograms
    private let filters: BindingRules
    private let dispatcher: FireDispatcher
    private let deliveryLimit: Int
    private let now: @Sendable () -> Timestamp
    /// Names this run of the process in the fires it writes; see ``DeliveryIdentity``.
    private let process = Slugid.make()
    private let discarded = Mutex<[HookName: Int]>([:])

    package init(
        store: ListenerStore,
        fires: FireStore,
        programs: HookPrograms,
        dispatcher: FireDispatcher,
        deliveryLimit: Int = 20,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        self.store = store
        self.fires = fires
        self.programs = programs
        self.dispatcher = dispatcher
        self.deliveryLimit = deliveryLimit
        self.now = now
        unfired = UnfiredStore(pool: store.pool)
        letters = DeadLetterStore(pool: store.pool)
        filters = BindingRules()
    }

    /// Accepts deliveries of a hook's queue; when this returns, they may be acknowledged.
    ///
    /// `connection` counts the connections they may come on: acknowledgements of an earlier one may be lost.
    ///
    /// - Throws: The database's refusal of what a delivery says. Nothing is accepted then.
    package func accept(
        _ deliveries: [PulseDelivery],
        for name: HookName,
        queue: String,
        connection: Int = 0
    ) async throws {
        let arrivals = deliveries.map { delivery in
            // Keys for this attempt: if the outcome of a commit is unknown, trying again with them changes nothing.
            Arrival(delivery: delivery, payload: Result { try JSONValue(parsing: delivery.body) }, key: Slugid.make())
        }
        try await patiently {
            try await acceptOnce(arrivals, for: name, queue: queue, consumer: consumer(connection))
        }
    }

    /// Repeats what the database could not do because it was away.
    private func patiently<Output: Sendable>(_ body: () async throws -> Output) async throws -> Output {
        var attempt = 1
        while true {
            do { return try await body() } catch let error as PostgresError
                where error.isConnectionFailure || error.isRetriable
            {
                if attempt == 1 {
                    Logger.current.error("messages wait for the database", metadata: ["error": "\(error)"])
                }
                attempt += 1
                try await Task.sleep(for: RetryPolicy.reconnect.delay(before: attempt))
            }
        }
    }

    /// Accepts deliveries, or buries those that nobody can: refused twice, or delivered too often because their consumers
    /// did not live to say anything.
    func acceptOrBury(_ batch: PulseBatch, for name: HookName) async throws {
        let again = batch.deliveries.filter(\.redelivered).map(Self.contentHash)
        guard !again.isEmpty else { return try await acceptOrBuryOne(batch, for: name) }
        let counts = try await patiently { try await store.countRedeliveries(again, in: batch.queue) }
        func isWorn(_ delivery: PulseDelivery) -> Bool {
            delivery.redelivered && counts[Self.contentHash(delivery)] ?? 0 > deliveryLimit
        }
        for delivery in batch.deliveries where isWorn(delivery) {
            try await bury(delivery, of: name, .redelivered, error: "it was delivered again and again to no end")
        }
        var others = batch
        others.deliveries.removeAll(where: isWorn)
        if !others.deliveries.isEmpty { try await acceptOrBuryOne(others, for: name) }
        try await patiently { try await store.forgetRedeliveries(again, in: batch.queue) }
    }

    private static func contentHash(_ delivery: PulseDelivery) -> String {
        DeliveryIdentity.contentHash(
            exchange: delivery.exchange,
            routingKey: delivery.routingKey,
            cc: delivery.cc,
            body: delivery.body
        )
    }

    private func acceptOrBuryOne(_ batch: PulseBatch, for name: HookName) async throws {
        do {
            try await accept(batch.deliveries, for: name, queue: batch.queue, connection: batch.connection)
        } catch {
            guard batch.deliveries.count == 1, batch.deliveries[0].redelivered, !Task.isCancelled else { throw error }
            try await bury(batch.deliveries[0], of: name, .poison, error: "\(error)")
        }
    }

    /// Makes a dead letter of a delivery.
    func bury(
        _ delivery: PulseDelivery,
        of name: HookName,
        _ reason: DeadLetter.Reason,
        error: String
    ) async throws {
        let instant = now()
        try await store.pool.transaction { connection in
            try await letters.add(delivery, of: name, reason, error: error, received: instant, on: connection)
        }
        Self.noteDeath(of: name, reason, error)
    }

    private static func noteDeath(of name: HookName, _ reason: DeadLetter.Reason, _ error: String) {
        Counter(label: "hooks_dead_letters_total", dimensions: [("reason", reason.rawValue)]).increment()
        Logger.current.warning(
            "a message became a dead letter",
            metadata: ["hook": "\(name)", "reason": "\(reason.rawValue)", "error": "\(error)"]
        )
    }

    // MARK: - One attempt

    private struct Arrival: Sendable {
        let delivery: PulseDelivery
        let payload: Result<JSONValue, any Error>
        let key: String

        var contentHash: String { DeliveryIntake.contentHash(delivery) }

        /// The identity of a message that can be recognised by what it says only.
        func ownIdentity(_ queue: String, _ consumer: String) -> (key: String, trace: DeliveryTrace?) {
            ("delivery \(key)", DeliveryTrace(queue: queue, consumer: consumer, contentHash: contentHash))
        }
    }

    private struct Sorted: Sendable {
        var drafts: [FireDraft] = []
        var unfired: [UnfiredMessage] = []
        var dead: [(delivery: PulseDelivery, error: String)] = []
    }

    private func acceptOnce(
        _ arrivals: [Arrival],
        for name: HookName,
        queue: String,
        consumer: String
    ) async throws {
        let places = await dispatcher.reserve(arrivals.count, patience: Self.patience)
        var accepted: [Fire] = []
        defer { dispatcher.submit(accepted, reserved: places) }
        let instant = now()
        if let fires = try await acceptAtOnce(arrivals, for: name, queue, consumer, instant, slots: places) {
            accepted = fires
            if fires.count < arrivals.count { dispatcher.lookNow() }
            return
        }
        let result = try await store.pool.transaction { connection in
            var sorted = Sorted()
            var program: HookProgram?
            var broken: FireFailure?
            do { program = try await programs.program(of: name, on: connection) } catch let failure as FireFailure {
                broken = failure
            }
            // A hook that is gone fires no more; its messages go with it.
            guard program != nil || broken != nil else { return (fires: [Fire](), sorted: sorted) }
            let rules = try await filters.rules(of: name, version: program?.version, on: connection)
            for arrival in arrivals {
                let payload: JSONValue
                do { payload = try arrival.payload.get() } catch {
                    sorted.dead.append((arrival.delivery, "\(error)"))
                    continue
                }
                if let program {
                    if let reason = refusal(arrival.delivery, payload, program, rules, instant) {
                        sorted.unfired.append(reason)
                        continue
                    }
                }
                let identity = try await identity(of: arrival, name, queue: queue, consumer: consumer, on: connection)
                guard let identity else { continue }
                sorted.drafts.append(draft(arrival.delivery, payload, identity, name, program, broken))
            }
            let fires = try await fires.accept(sorted.drafts, slots: places, on: connection)
            try await unfired.note(sorted.unfired, of: name, on: connection)
            for (delivery, error) in sorted.dead {
                try await letters.add(delivery, of: name, .poison, error: error, received: instant, on: connection)
            }
            return (fires: fires, sorted: sorted)
        }
        accepted = result.fires
        FiringLog.settled(result.sorted.drafts)
        for message in result.sorted.unfired { note(message, name) }
        for (_, error) in result.sorted.dead { Self.noteDeath(of: name, .poison, error) }
        if result.sorted.drafts.count > accepted.count { dispatcher.lookNow() }
    }

    /// How long messages wait for room among the fires that are being performed.
    private static let patience: Duration = .milliseconds(100)

    /// Accepts messages in the usual case with one statement: the hook is as it was, and each message makes a task.
    ///
    /// Nil when it takes more than that.
    private func acceptAtOnce(
        _ arrivals: [Arrival],
        for name: HookName,
        _ queue: String,
        _ consumer: String,
        _ instant: Timestamp,
        slots: Int
    ) async throws -> [Fire]? {
        guard let program = programs.known(name), let rules = filters.known(name, version: program.version) else {
            return nil
        }
        var drafts: [FireDraft] = []
        for arrival in arrivals {
            guard let payload = try? arrival.payload.get(),
                refusal(arrival.delivery, payload, program, rules, instant) == nil,
                let identity = firstIdentity(of: arrival, name, queue: queue, consumer: consumer)
            else { return nil }
            let draft = draft(arrival.delivery, payload, identity, name, program, nil)
            guard case .task = draft.rendering else { return nil }
            drafts.append(draft)
        }
        return try await fires.accept(drafts, of: name, version: program.version, slots: slots)
    }

    /// Why a message fires nothing, if so.
    private func refusal(
        _ delivery: PulseDelivery,
        _ payload: JSONValue,
        _ program: HookProgram,
        _ rules: [BindingRule],
        _ instant: Timestamp
    ) -> UnfiredMessage? {
        var names = Self.names(of: delivery, payload)
        names["routes"] = JSONValue(delivery.routes)
        let keys = [delivery.routingKey] + delivery.cc
        switch FilterVerdict.of(rules, exchange: delivery.exchange, keys: keys, names: names, now: instant) {
        case .passes: break
        case .declined(let reason):
            return UnfiredMessage(kind: .declined, reason: reason, received: instant, delivery: delivery)
        case .failed(let reason):
            return UnfiredMessage(kind: .rejected, reason: reason, received: instant, delivery: delivery)
        }
        let problems = program.schema.validate(payload)
        guard !problems.isEmpty else { return nil }
        let reason = "triggerSchema: " + problems.map { $0.described() }.joined(separator: "; ")
        return UnfiredMessage(kind: .rejected, reason: reason, received: instant, delivery: delivery)
    }

    private typealias Identity = (key: String, trace: DeliveryTrace?)

    /// The key of a message and, if it has no id, its trace; nil for a copy of one whose fire is written already.
    private func identity(
        of arrival: Arrival,
        _ name: HookName,
        queue: String,
        consumer: String,
        on connection: PostgresConnection
    ) async throws -> Identity? {
        if let identity = firstIdentity(of: arrival, name, queue: queue, consumer: consumer) { return identity }
        if try await store.absorb(queue: queue, contentHash: arrival.contentHash, on: connection) {
            Counter(label: "hooks_redeliveries_absorbed_total").increment()
            return nil
        }
        return arrival.ownIdentity(queue, consumer)
    }

    /// The identity of a message that has an id or comes for the first time; nil if it may be a copy without an id.
    private func firstIdentity(of arrival: Arrival, _ name: HookName, queue: String, consumer: String) -> Identity? {
        if let id = arrival.delivery.messageID {
            return (DeliveryIdentity.key(messageID: id, contentHash: arrival.contentHash, of: name), nil)
        }
        return arrival.delivery.redelivered ? nil : arrival.ownIdentity(queue, consumer)
    }

    /// The members of a template's context that a message brings.
    static func names(of delivery: PulseDelivery, _ payload: JSONValue) -> JSONObject {
        [
            "payload": payload,
            "exchange": JSONValue(delivery.exchange),
            "routingKey": JSONValue(delivery.routingKey),
        ]
    }

    private func draft(
        _ delivery: PulseDelivery,
        _ payload: JSONValue,
        _ identity: Identity,
        _ name: HookName,
        _ program: HookProgram?,
        _ broken: FireFailure?
    ) -> FireDraft {
        let extras = Self.names(of: delivery, payload)
        let instant = now()
        let taskID = Slugid.make()
        var rendering = Rendering.declined
        if let broken { rendering = .failed(broken) }
        if let program {
            rendering = FiringContext(firedBy: .pulseMessage, taskID: taskID, created: instant, extras: extras)
                .render(program.template)
        }
        var draft = FireDraft(
            name: name,
            taskID: taskID,
            firedBy: .pulseMessage,
            context: extras,
            created: instant,
            started: instant,
            rendering: rendering,
            deduplicationKey: identity.key,
            delivery: identity.trace
        )
        draft.due = delivery.published.map { min($0, instant) }
        draft.rendered = now()
        return draft
    }

    private func note(_ message: UnfiredMessage, _ name: HookName) {
        Counter(label: "hooks_messages_discarded_total", dimensions: [("reason", message.kind.rawValue)]).increment()
        guard message.kind == .rejected else { return }
        let count = discarded.withLock { discarded in
            discarded[name, default: 0] += 1
            return discarded[name, default: 0]
        }
        guard count == 1 || count % 100 == 0 else { return }
        Logger.current.notice(
            "hook-pulse-message-discarded",
            metadata: [
                "hookGroupId": "\(name.group)", "hookId": "\(name.hook)",
                "exchange": "\(message.delivery.exchange)", "routingKey": "\(message.delivery.routingKey)",
                "reason": "triggerSchema", "validationError": "\(message.reason)", "discardedCount": "\(count)",
            ]
        )
    }

    // MARK: - Acknowledgements

    private func consumer(_ connection: Int) -> String { "\(process)/\(connection)" }

    /// Settles fires whose acknowledgements the broker has surely got: those of a connection that has answered since.
    func settle(connection: Int) async throws {
        try await store.settle(consumer: consumer(connection), olderThan: .seconds(30))
    }

    /// Settles everything that was accepted on a connection, after the broker confirmed the closing of its channels.
    func settleAll(connection: Int) async throws {
        try await store.settle(consumer: consumer(connection), olderThan: .zero)
    }
}
