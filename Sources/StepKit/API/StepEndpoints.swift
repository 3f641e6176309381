// SPDX-License-Identifier: MPL-2.0

public import APIServer
public import JSON
import Logging
import Postgres
import Schedules

/// Makes the endpoints of a step service: admits callers, reads bodies, and turns refusals into problem documents.
public struct StepEndpoints: Sendable {
    /// Answers a request of somebody who was admitted.
    public typealias Handler = @Sendable (APIRequest, StepActor) async throws -> APIResponse

    /// Who is admitted.
    public let gate: StepGate

    /// Makes endpoints behind a gate.
    public init(gate: StepGate) {
        self.gate = gate
    }

    /// An endpoint for those who may act on the step that the path names `uid`.
    public func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        name: String,
        verb: String,
        query: [String: QueryRule] = [:],
        title: String,
        handler: @escaping Handler
    ) -> Endpoint {
        open(method, route, name: name, query: query, title: title) { [gate] request in
            let uid = route.contains("<uid>") ? request.parameter("uid") : nil
            return try await handler(request, try await gate.admit(request, verb, uid))
        }
    }

    /// An endpoint that admits callers by itself.
    public func open(
        _ method: HTTPMethodName,
        _ route: String,
        name: String,
        query: [String: QueryRule] = [:],
        title: String,
        handler: @escaping Endpoint.Handler
    ) -> Endpoint {
        Endpoint(
            method,
            route,
            name: name,
            query: query,
            category: "Steps",
            title: title,
            description: title,
            payloadInErrors: { _ in [:] }
        ) { request in
            do {
                return try await handler(request)
            } catch {
                return try Self.answer(to: error)
            }
        }
    }

    /// The answer to an error; what is nobody's business is thrown on.
    static func answer(to error: any Error) throws -> APIResponse {
        switch error {
        case let replayed as StepStore.Replayed:
            return .json(.object(replayed.reply), headers: ["Idempotency-Replayed": "true"])
        case let problem as StepProblem:
            return response(problem)
        case let error as PostgresError where error.isRetriable || error.code == .poolClosed:
            return response(
                StepProblem(503, "unavailable", "The database cannot be reached", headers: ["Retry-After": "2"])
            )
        case let error as PostgresError where error.sqlState?.hasPrefix("22") == true:
            // A value that the database does not take, such as a label with a zero in it.
            Logger.current.warning("a request holds what cannot be stored", metadata: ["error": "\(error)"])
            return response(StepProblem.invalid("The request holds a value that cannot be stored", code: "bad_value"))
        default:
            throw error
        }
    }

    /// A refusal as a problem document.
    static func response(_ problem: StepProblem) -> APIResponse {
        let title = StatusText.reason(problem.status)
        var body: JSONObject = [
            "type": "about:blank",
            "title": .string(title),
            "status": JSONValue(problem.status),
            "detail": .string(problem.detail),
            "instance": "about:blank",
            "code": .string(problem.code),
        ]
        if problem.status == 409 {
            body["error_title"] = .string(title)
            body["error_message"] = .string(problem.detail)
        }
        for (name, value) in problem.members { body[name] = value }
        var headers = problem.headers
        headers["Content-Type"] = "application/problem+json"
        return .json(.object(body), status: problem.status, headers: headers)
    }
}

extension APIRequest {
    /// The body as an object; an empty body is an empty object.
    public func jsonObject() throws(StepProblem) -> JSONObject {
        guard !rawBody.isEmpty else { return [:] }
        let type = (header("content-type") ?? "").prefix { $0 != ";" }.lowercased().filter { $0 != " " }
        guard type == "application/json" || (type.hasPrefix("application/") && type.hasSuffix("+json")) else {
            throw StepProblem(415, "unsupported_media_type", "Send application/json")
        }
        let value: JSONValue
        do {
            value = try JSONValue(parsing: rawBody)
        } catch {
            throw StepProblem.invalid("The body is not JSON: \(error.message)", code: "malformed_payload")
        }
        guard let object = value.object else {
            throw StepProblem.invalid("The body has to be a JSON object", code: "malformed_payload")
        }
        if let key = DuplicateKeys.first(in: rawBody) {
            throw StepProblem.invalid("The body has the key \(key) twice", code: "duplicate_key")
        }
        return object
    }

    /// The entity tags that the caller accepts.
    public var match: EntityTags? { EntityTags(header("if-match")) }

    /// The key under which a repetition of this request is recognised.
    public func requestKey(_ store: StepStore, _ actor: StepActor) throws(StepProblem) -> StepStore.RequestKey? {
        guard let key = header("idempotency-key") else { return nil }
        guard (1...128).contains(key.utf8.count) else {
            throw StepProblem.invalid("An Idempotency-Key has 1 to 128 characters")
        }
        return store.requestKey(key, client: actor.name, method: "POST", path: resource, body: rawBody)
    }

    /// The words of an option that may be repeated or hold a list.
    func words(_ name: String) -> [String] {
        query[name]?.split(separator: ",").map(String.init) ?? []
    }

    /// The moment an option names.
    func moment(_ name: String) throws(StepProblem) -> Timestamp? {
        guard let text = query[name] else { return nil }
        guard let moment = Timestamp(text) else { throw StepProblem.invalid("\(name) is not a date and time") }
        return moment
    }

    /// How many rows a page has.
    public func pageSize() throws(StepProblem) -> Int {
        guard let text = query["limit"] else { return 100 }
        guard let limit = Int(text), (1...500).contains(limit) else {
            throw StepProblem.invalid("limit has to be 1 to 500")
        }
        return limit
    }
}

extension JSONObject {
    /// Refuses members beyond the known ones.
    public func allowOnly(_ names: Set<String>) throws(StepProblem) {
        let unknown = keys.filter { !names.contains($0) }.sorted()
        guard unknown.isEmpty else {
            throw StepProblem.invalid("Unknown members: \(unknown.joined(separator: ", "))", code: "unknown_member")
        }
    }
}
