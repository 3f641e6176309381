// SPDX-License-Identifier: MPL-2.0

import Crypto
public import JSON
public import Postgres
public import Schedules

/// A change of one step under the lock of its row: the step, what the audit shall say, and the connection it happens on.
public struct StepTransaction {
    /// The connection with the open transaction.
    public let connection: PostgresConnection
    /// The moment of the change.
    public let now: Timestamp
    /// Who changes.
    public let actor: String
    /// The step as it shall be.
    public var step: Step
    /// What the audit says, in order.
    private(set) var events: [StepEvent] = []
    private(set) var isReleased = false

    init(connection: PostgresConnection, now: Timestamp, actor: String, step: Step) {
        self.connection = connection
        self.now = now
        self.actor = actor
        self.step = step
    }

    /// Adds a line to the audit; it is written with the change.
    ///
    /// - Parameters:
    ///   - kind: What happened.
    ///   - subject: The part of the step it happened to.
    ///   - data: The particulars.
    ///   - actor: Who did it, if not the one who changes.
    public mutating func record(
        _ kind: String,
        subject: String? = nil,
        _ data: JSONObject = [:],
        actor: String? = nil
    ) {
        let event = StepEvent(
            stepID: step.id,
            sequence: step.lastSequence + 1,
            at: now,
            actor: actor ?? self.actor,
            kind: kind,
            subject: subject,
            data: data,
            previousHash: step.lastHash
        )
        step.lastSequence = event.sequence
        step.lastHash = event.hash
        events.append(event)
    }

    /// Moves the step to a state and notes when it began and ended; a state it has already changes the message alone.
    ///
    /// A final state is left only by ``reopen(to:message:)``: moving a step that has ended has no effect.
    public mutating func move(to state: StepState, message: String) {
        guard !step.state.isTerminal || state == step.state else { return }
        step.message = message
        guard state != step.state else { return }
        step.state = state
        if state != .pending, state != .starting, step.started == nil { step.started = now }
        if state.isTerminal {
            step.finished = now
            step.nextCheck = nil
        }
        var data: JSONObject = ["state": .string(state.rawValue)]
        if !message.isEmpty { data["message"] = .string(message) }
        record("state", data)
    }

    /// Lets a step go on that had ended.
    public mutating func reopen(to state: StepState, message: String) {
        guard !state.isTerminal else { return }
        step.state = state
        step.message = message
        step.finished = nil
        record("state", ["state": .string(state.rawValue), "reopened": true])
    }

    /// Ends the lease of whoever looks at the step; it is looked at again when ``Step/nextCheck`` says so.
    public mutating func release() {
        isReleased = true
        step.checkFailures = 0
    }

    mutating func fail(pause: Duration) {
        isReleased = true
        step.checkFailures += 1
        step.nextCheck = now + pause
    }
}

/// One line of the audit of a step; each carries the digest of everything before it.
public struct StepEvent: Sendable, Hashable {
    /// The number of the step.
    public let stepID: Int
    /// Its place among the events of the step, from 1.
    public let sequence: Int
    /// When it happened.
    public let at: Timestamp
    /// Who did it.
    public let actor: String
    /// What happened.
    public let kind: String
    /// The part of the step it happened to.
    public let subject: String?
    /// The particulars.
    public let data: JSONObject
    /// The digest of the event before it; zeros for the first.
    public let previousHash: [UInt8]

    /// Describes an event.
    package init(
        stepID: Int,
        sequence: Int,
        at moment: Timestamp,
        actor: String,
        kind: String,
        subject: String?,
        data: JSONObject,
        previousHash: [UInt8]
    ) {
        self.stepID = stepID
        self.sequence = sequence
        at = moment
        // As the database will store it, so that the digest is about the same.
        self.actor = Self.storable(actor)
        self.kind = Self.storable(kind)
        self.subject = subject.map(Self.storable)
        self.data = data
        self.previousHash = previousHash
    }

    /// The digest of the one before and of this.
    public var hash: [UInt8] {
        Array(SHA256.hash(data: previousHash + CanonicalJSON.bytes(.object(content))))
    }

    /// The digest before the first.
    package static let origin = [UInt8](repeating: 0, count: 32)

    /// The event as readers of the audit see it.
    public var json: JSONObject {
        var json = content
        json["hash"] = .string(Hexadecimal.encoded(hash))
        return json
    }

    /// A text without zero bytes, which PostgreSQL does not store.
    static func storable(_ text: String) -> String {
        guard text.utf8.contains(0) else { return text }
        return String(decoding: text.utf8.filter { $0 != 0 }, as: UTF8.self)
    }

    private var content: JSONObject {
        var json: JSONObject = [
            "id": JSONValue(sequence), "step_id": JSONValue(stepID), "ts": .string(at.iso8601),
            "actor": .string(actor), "kind": .string(kind),
        ]
        json["step"] = subject.map { .string($0) }
        json["data"] = .object(data)
        return json
    }
}

/// Bytes as digits of base sixteen.
public enum Hexadecimal {
    /// Two lower-case digits for each byte.
    public static func encoded(_ bytes: some Sequence<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(
            decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] },
            as: UTF8.self
        )
    }
}
