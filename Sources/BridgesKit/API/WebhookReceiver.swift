// SPDX-License-Identifier: MPL-2.0

package import APIServer
import Core
import Crypto
import JSON
import Logging
import Postgres
import Schedules
import Synchronization

/// Takes webhooks from outside: believes the signed ones, writes them down, and only then says so.
///
/// `POST /webhooks/<source>`; a query is ignored, because some senders insist on one.
package struct WebhookReceiver: Sendable {
    private let gates: [String: SourceGate]
    private let store: DeliveryStore
    private let budget = BodyBudget()
    /// How long a body may take to arrive.
    private let patience: Duration
    private let now: @Sendable () -> Timestamp

    init(
        sources: [WebhookSource],
        store: DeliveryStore,
        patience: Duration = .seconds(30),
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        self.patience = patience
        gates = Dictionary(sources.map { ($0.name, SourceGate($0)) }) { first, _ in first }
        self.store = store
        self.now = now
    }

    /// The route for a server.
    package var route: RawRoute {
        RawRoute(.post, prefix: "/webhooks/", name: "webhook", handler: receive)
    }

    @Sendable private func receive(_ request: RawRequest) async throws -> RawResponse {
        let start = ContinuousClock.now
        let name = request.rest.hasSuffix("/") ? String(request.rest.dropLast()) : request.rest
        guard let gate = gates[name] else { throw APIError(.resourceNotFound, "There is no source of this name") }
        do {
            let (outcome, response) = try await receive(request, gate)
            gate.count(outcome, since: start)
            return response
        } catch let refusal as Refusal {
            gate.count(refusal.outcome, since: start)
            gate.report(refusal.outcome, refusal.reason, from: request.remoteAddress)
            guard let pause = refusal.retryAfter else { throw APIError(refusal.code, refusal.text) }
            return Self.response(to: refusal, retryAfter: pause)
        }
    }

    // MARK: - Steps

    private func receive(_ request: RawRequest, _ gate: SourceGate) async throws
        -> (SourceGate.Outcome, RawResponse)
    {
        // Looked at before the body is read, taken only for signed deliveries: strangers cannot use up the rate of a source.
        if let pause = gate.delay() { throw Refusal.limited(pause) }
        let share = budget.share()
        defer { share.giveBack() }
        let body = try await read(request, limit: gate.source.bodyLimit, share)
        do throws(SignatureProblem) {
            try Signature.check(gate.source, header: request.header, body: body, now: now())
        } catch {
            if let answer = unsignedPing(request, gate.source, error) { return answer }
            throw Refusal.unsigned(error.description)
        }
        if let pause = gate.take() { throw Refusal.limited(pause) }
        let (payload, text) = try parse(body, mediaType: request.header("Content-Type"))
        let event: WebhookEvent
        do throws(WebhookEvent.Problem) {
            event = try WebhookEvent(gate.source, header: request.header, payload: payload, body: body)
        } catch {
            throw Refusal.malformed(error.description)
        }
        if event.isPing { return (.ping, Self.answer(200, ["ping": true])) }
        return try await store(Delivery(event, source: gate.source.name, body: text, received: now()), body)
    }

    /// Reads a body that is neither too long nor too slow.
    private func read(_ request: RawRequest, limit: Int, _ share: BodyBudget.Share) async throws -> [UInt8] {
        if let length = request.contentLength, length > limit { throw Refusal.oversized(limit) }
        do {
            return try await withTimeout(patience) {
                var body: [UInt8] = []
                for try await piece in request.body {
                    guard body.count + piece.count <= limit else { throw Refusal.oversized(limit) }
                    guard share.take(piece.count) else { throw Refusal.crowded }
                    body += piece
                }
                return body
            }
        } catch let refusal as Refusal {
            throw refusal
        } catch is TimeoutError {
            throw Refusal.malformed("the body did not arrive within \(patience.settingsText)")
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            throw Refusal.malformed("the body ended early")
        }
    }

    private func store(_ delivery: Delivery, _ body: [UInt8]) async throws -> (SourceGate.Outcome, RawResponse) {
        let outcome: DeliveryStore.Outcome
        do {
            outcome = try await store.accept(delivery, digest: Array(SHA256.hash(data: body)))
        } catch let error as PostgresError {
            throw Refusal.unavailable("\(error)")
        }
        let answer: JSONObject = [
            "eventId": .string(delivery.deliveryID),
            "exchange": .string(store.exchange(delivery.source)),
            "routingKey": .string(delivery.routingKey),
        ]
        switch outcome {
        case .accepted:
            Logger.current.info(
                "webhook accepted",
                metadata: [
                    "bridge.source": "\(delivery.source)", "bridge.delivery": "\(delivery.deliveryID)",
                    "routingKey": "\(delivery.routingKey)", "bytes": "\(delivery.body.count)",
                ]
            )
            return (.accepted, Self.answer(202, answer))
        case .duplicate:
            var answer = answer
            answer["duplicate"] = true
            return (.duplicate, Self.answer(200, answer))
        case .conflict:
            throw Refusal.conflict(delivery.deliveryID)
        }
    }

    /// Bitbucket does not sign its connection test, and an answer to it gives nothing away.
    private func unsignedPing(
        _ request: RawRequest,
        _ source: WebhookSource,
        _ problem: SignatureProblem
    ) -> (SourceGate.Outcome, RawResponse)? {
        guard case .bitbucket = source.kind, request.header("X-Event-Key") == "diagnostics:ping",
            problem == .missing("X-Hub-Signature")
        else { return nil }
        return (.ping, Self.answer(200, ["ping": true]))
    }

    /// The value of a body, and its JSON text.
    private func parse(_ body: [UInt8], mediaType: String?) throws(Refusal) -> (JSONValue, [UInt8]) {
        let type = (mediaType ?? "").prefix { $0 != ";" }.filter { $0 != " " }.lowercased()
        var text = body
        switch type {
        case "application/json": break
        case "application/x-www-form-urlencoded":
            guard let fields = FormBody.fields(body) else { throw .malformed("the form is not well encoded") }
            if let payload = fields.first(where: { $0.name == "payload" })?.value {
                text = Array(payload.utf8)
            } else {
                text = FormBody.object(fields).bytes()
            }
        default:
            throw .malformed("the content type must be application/json or application/x-www-form-urlencoded")
        }
        let value: JSONValue
        do {
            value = try JSONValue(parsing: text)
        } catch {
            throw .malformed("the payload is not JSON: \(error.message)")
        }
        switch value {
        case .object, .array: return (value, text)
        default: throw .malformed("the payload must be an object or an array")
        }
    }

    // MARK: - Answers

    private static func answer(_ status: Int, _ value: JSONObject) -> RawResponse {
        RawResponse(
            status: status,
            headers: [(name: "Content-Type", value: "application/json; charset=utf-8")],
            body: .bytes(JSONValue.object(value).bytes())
        )
    }

    private static func response(to refusal: Refusal, retryAfter pause: Duration) -> RawResponse {
        var response = answer(
            refusal.code.status,
            ["code": .string(refusal.code.name), "message": .string(refusal.text)]
        )
        let seconds = max(1, pause.components.seconds + (pause.components.attoseconds > 0 ? 1 : 0))
        response.headers.append((name: "Retry-After", value: String(seconds)))
        return response
    }
}

/// Why a webhook is not accepted.
private struct Refusal: Error {
    let outcome: SourceGate.Outcome
    let code: APIErrorCode
    /// What the sender is told.
    let text: String
    /// What the log is told.
    let reason: String
    var retryAfter: Duration?

    private init(
        _ outcome: SourceGate.Outcome,
        _ code: APIErrorCode,
        _ text: String,
        reason: String? = nil,
        retryAfter: Duration? = nil
    ) {
        self.outcome = outcome
        self.code = code
        self.text = text
        self.reason = reason ?? text
        self.retryAfter = retryAfter
    }

    static func limited(_ pause: Duration) -> Refusal {
        Refusal(.limited, .tooManyRequests, "This source sends more than its rate allows", retryAfter: pause)
    }

    static func oversized(_ limit: Int) -> Refusal {
        Refusal(.oversized, .inputTooLarge, "The body is longer than the \(limit) bytes this source may send")
    }

    static func unsigned(_ problem: String) -> Refusal {
        Refusal(
            .unsigned,
            .custom("InvalidSignature", 403),
            "The delivery is not accepted: \(problem)",
            reason: problem
        )
    }

    static func malformed(_ problem: String) -> Refusal {
        Refusal(.malformed, .malformedPayload, "The delivery cannot be read: \(problem)", reason: problem)
    }

    static func conflict(_ id: String) -> Refusal {
        Refusal(.conflict, .requestConflict, "Another delivery with another body was accepted under the id \(id)")
    }

    static func unavailable(_ reason: String) -> Refusal {
        Refusal(
            .unavailable,
            .custom("ServiceUnavailable", 503),
            "The delivery cannot be stored at the moment; send it again",
            reason: reason,
            retryAfter: .seconds(5)
        )
    }

    static let crowded = Refusal(
        .unavailable,
        .custom("ServiceUnavailable", 503),
        "Too much is being received at the moment; send the delivery again",
        retryAfter: .seconds(1)
    )
}

/// The bytes of bodies that may be in memory at a time, whoever sends them.
private final class BodyBudget: Sendable {
    /// What one request holds of it.
    final class Share: Sendable {
        private let budget: BodyBudget
        private let held = Mutex(0)

        init(_ budget: BodyBudget) {
            self.budget = budget
        }

        func take(_ count: Int) -> Bool {
            let isLeft = budget.left.withLock { left in
                guard left >= count else { return false }
                left -= count
                return true
            }
            if isLeft { held.withLock { $0 += count } }
            return isLeft
        }

        func giveBack() {
            let count = held.withLock { held in
                defer { held = 0 }
                return held
            }
            budget.left.withLock { $0 += count }
        }
    }

    private let left = Mutex(96 << 20)

    func share() -> Share { Share(self) }
}
