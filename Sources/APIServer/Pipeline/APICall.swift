// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPTypes
import JSON
import JSONSchema
import Schedules
import Taskcluster

/// One request to an endpoint: the checks, in the order callers can observe, and then the handler.
struct APICall {
    let dispatcher: Dispatcher
    let route: Route
    let head: RequestHead
    let identifiers: (trace: String, request: String)

    private var endpoint: Endpoint { route.endpoint }

    func answer(_ captures: [(name: String, raw: Substring)]) async -> Reply {
        let started = ContinuousClock.now
        var context = ErrorBody.Context(method: endpoint.name, shape: route.api.errors)
        var state: RequestState?
        let reply: Reply
        do {
            let known = try await prepare(captures, &context)
            state = known
            reply = try await respond(known)
        } catch {
            reply = dispatcher.refusal(error, context)
        }
        note(reply, state, since: started)
        return reply
    }

    /// Reads a request; kept apart, because what that takes would otherwise stay in memory while the request is answered.
    @inline(never)
    private func prepare(
        _ captures: [(name: String, raw: Substring)],
        _ context: inout ErrorBody.Context
    ) async throws -> RequestState {
        var parameters: [String: String] = [:]
        for (name, raw) in captures {
            guard let value = PercentEncoding.decode(raw) else {
                throw APIError(.invalidRequestArguments, "URL parameter '\(name)' has a malformed percent-encoding")
            }
            parameters[name] = value
            // Errors are logged by those who get them, so they repeat no secrets.
            context.parameters.append((name, endpoint.secretParameters.contains(name) ? "..." : value))
        }
        let rawBody = try await BodyReader.content(head, dispatcher.configuration.bodyLimit)
        let payload = try BodyReader.parse(rawBody, head, takesAnyValue: route.api.errors == .problem)
        context.payload = endpoint.payloadInErrors(payload)
        return RequestState(
            head: head,
            api: route.api,
            endpoint: endpoint,
            parameters: parameters,
            rawBody: rawBody,
            payload: payload,
            identifiers: identifiers,
            authenticator: dispatcher.authenticator
        )
    }

    /// Answers a part of a request as if it had come by itself.
    func answer(_ part: RequestPart, of whole: RequestState) async -> Reply {
        let started = ContinuousClock.now
        var context = ErrorBody.Context(method: endpoint.name, shape: route.api.errors)
        context.parameters = part.parameters.map {
            ($0.key, endpoint.secretParameters.contains($0.key) ? "..." : $0.value)
        }
        context.payload = endpoint.payloadInErrors(part.payload)
        let state = RequestState(part, of: whole, endpoint)
        let reply: Reply
        do {
            if let refusal = part.refusal { throw refusal }
            reply = try await respond(state)
        } catch {
            reply = dispatcher.refusal(error, context)
        }
        note(reply, state, since: started)
        return reply
    }

    private func note(_ reply: Reply, _ state: RequestState?, since started: ContinuousClock.Instant) {
        let seconds = (ContinuousClock.now - started).seconds
        route.metrics.record(status: reply.status, seconds: seconds)
        AccessLog.write(route, state, head: head, reply: reply, seconds: seconds)
    }

    @inline(never)
    private func respond(_ state: RequestState) async throws -> Reply {
        if route.authorizesFirst {
            try await state.authorize([:])
        }
        try checkParameters(state.parameters)
        let query = try QueryOptions.parse(head.rawQuery, endpoint.query)
        let continuation = try query["continuationToken"].map(Continuation.decode)
        let body = try validated(state)
        let request = APIRequest(call: self, state: state, query: query, body: body, continuation: continuation)
        let response = try await endpoint.handler(request)
        if response.status < 400, !state.isAuthorized {
            throw ServerFault(message: "\(endpoint.name) answered without comparing scopes")
        }
        return try reply(response)
    }

    private func checkParameters(_ values: [String: String]) throws {
        let problems = route.pattern.names.compactMap { name -> String? in
            guard let rule = endpoint.parameters[name], let value = values[name], !rule.matches(value) else {
                return nil
            }
            return "URL parameter '\(name)' given as '\(value)' must match regular expression: \(rule.pattern)"
        }
        guard problems.isEmpty else {
            throw APIError(.invalidRequestArguments, "Invalid URL patterns:\n" + problems.joined(separator: "\n"))
        }
    }

    /// The body as its schema wants it, defaults filled in.
    private func validated(_ state: RequestState) throws -> JSONValue {
        guard let input = endpoint.input else { return [:] }
        guard head.mediaType == "application/json" else {
            throw APIError(
                .malformedPayload,
                "Payload must be JSON with content-type: application/json, got content-type: \(head.mediaType)"
            )
        }
        let schema = try route.api.schemas.schema(route.api.service, input)
        let body = schema.applyingDefaults(state.payload)
        let problems = schema.validate(body)
        guard problems.isEmpty else {
            let lines = problems.map { "\n  * \($0.described(root: "data"))" }.joined()
            throw APIError(
                .inputValidationError,
                "Schema Validation Failed!\nRejecting Schema: /schemas/\(route.api.service)/\(input)\nErrors:\(lines)"
            )
        }
        return body
    }

    private func reply(_ response: APIResponse) throws -> Reply {
        switch response {
        case .json(let value, let status, let headers):
            if status < 400, let output = endpoint.output, output != "blob" {
                let schema = try route.api.schemas.schema(route.api.service, output)
                let problems = schema.validate(value)
                guard problems.isEmpty else {
                    let text = problems.map { $0.described(root: "data") }.joined(separator: "; ")
                    throw ServerFault(message: "\(endpoint.name) answered against \(output): \(text)")
                }
            }
            return .json(value, status, fields: HTTPFields(pairs: headers.map { (name: $0.key, value: $0.value) }))
        case .rawJSON(let bytes, let status, let headers):
            return .json(bytes, status, fields: HTTPFields(pairs: headers.map { (name: $0.key, value: $0.value) }))
        case .empty:
            return Reply(204)
        case .text(let text, let status, let type):
            return .text(text, status, type: type)
        case .file(let path, let headers):
            let own = HTTPFields(pairs: headers.map { (name: $0.key, value: $0.value) })
            guard let reply = FileReply.make(path: path, own: own, request: head.fields) else {
                throw APIError(.resourceNotFound, "There is no such file")
            }
            return reply
        case .bodyless(let status, let headers):
            return Reply(status, fields: HTTPFields(pairs: headers.map { (name: $0.key, value: $0.value) }))
        case .stream(let type, let next):
            return Reply(200, fields: [.contentType: type], body: .stream(next))
        }
    }
}
