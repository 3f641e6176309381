// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPTypes
import HummingbirdCore
import JSON
import Logging
import NIOCore
import Schedules
import Taskcluster

/// Finds out who answers a request, and sends the answer.
struct Dispatcher: Sendable {
    let configuration: HTTPServerConfiguration
    let apis: [API]
    let authenticator: (any RequestAuthenticator)?
    private let health: HealthEndpoints
    let routes: RouteTable
    private let raw: [RawRoute]
    private let rawMetrics: [RequestMetrics]
    private let proxies: [ProxyRoute]
    private let references: References
    private let standard: StandardFields
    private let date = DateField()

    init(
        configuration: HTTPServerConfiguration,
        rootURL: String?,
        apis declared: [API],
        authenticator: (any RequestAuthenticator)?,
        health: HealthEndpoints,
        raw: [RawRoute],
        proxies: [ProxyRoute]
    ) {
        let apis = declared.map { api in
            api.mount == .root ? api : api.adding(health.endpoints(besides: api.endpoints))
        }
        self.configuration = configuration
        self.apis = apis
        self.authenticator = authenticator
        self.health = health
        self.raw = raw
        self.proxies = proxies
        routes = RouteTable(apis)
        rawMetrics = raw.map { RequestMetrics(service: "raw", name: $0.name, method: $0.method?.rawValue ?? "*") }
        references = References(apis: apis.filter { $0.mount == .versioned }, proxies: proxies, rootURL: rootURL)
        standard = StandardFields(forcesTLS: configuration.forcesTLS, origins: configuration.allowedOrigins)
        Metrics.describe(
            "http_request_duration_seconds",
            "How long requests took, by API method and status.",
            buckets: [0.01, 0.05, 0.1, 0.5, 1, 5, 10]
        )
        Metrics.describe("http_requests_total", "Requests answered, by API method and status.")
    }

    /// Makes sure that every declared schema has a file, so that a broken installation does not wait for a request.
    func checkSchemas() throws {
        for api in apis {
            let bodies = api.endpoints.flatMap { [$0.input, $0.output] } + api.exchanges.map(\.schema)
            let names = bodies.compactMap { $0 }.filter { $0 != "blob" }
            if let missing = names.first(where: { !api.schemas.contains(api.service, $0) }) {
                throw SchemaError(message: "schema \(api.service)/\(missing) is missing in \(api.schemas.directory)")
            }
        }
    }

    // MARK: - One request

    /// Answers one request of a connection; throws to end the connection.
    @concurrent
    func serve(_ request: Request, _ writer: consuming ResponseWriter, _ channel: any Channel) async throws {
        let head = RequestHead(request: request, channel: channel, configuration: configuration)
        let identifiers = (
            trace: head.fields[.trace] ?? Identifiers.uuid(), request: Identifiers.uuid()
        )
        let mayRead = rawRoute(head) != nil || (head.contentLength ?? 0) <= configuration.bodyLimit
        if mayRead, head.hasBody, head.fields[.expect]?.lowercased() == "100-continue" {
            try await writer.writeInformationalHead(HTTPResponse(status: .continue))
        }
        var reply = await answer(head, identifiers)
        reply.compress(for: head)
        if !reply.isForeign {
            reply.fields = standard.completing(
                reply.fields,
                origin: head.fields[.origin],
                isSecure: head.forwardedScheme == "https",
                trace: identifiers.trace,
                request: identifiers.request,
                date: date.text
            )
        }
        if reply.status != 204, reply.status != 304, reply.hasKnownLength, reply.fields[.contentLength] == nil {
            reply.fields[.contentLength] = String(reply.contentLength)
        }
        if reply.closes {
            reply.fields[.connection] = "close"
        }
        let response = HTTPResponse(
            status: HTTPResponse.Status(code: reply.status),
            headerFields: reply.fields
        )
        let watch = head.delivery.isWatched ? await head.connectionWatch() : nil
        if watch?.isGone == true {
            await head.delivery.fail()
            throw ConnectionEnds()
        }
        let end = watch?.expectAnswer(on: channel.eventLoop)
        do {
            try await writer.write(response: response, body: body(of: reply, for: head))
            try await end?.get()
        } catch {
            watch?.forgetAnswer()
            await head.delivery.fail()
            throw error
        }
        // What is left of a body that somebody began to read is skipped by the connection itself.
        if reply.closes, !head.bodyUse.hasBegun {
            try await drain(head)
            throw ConnectionEnds()
        }
    }

    private func body(of reply: Reply, for head: RequestHead) -> ResponseBody {
        guard head.request.method != .head else { return ResponseBody() }
        switch reply.body {
        case .none:
            return ResponseBody()
        case .bytes(let bytes):
            return ResponseBody(byteBuffer: ByteBuffer(bytes: bytes))
        case .file(let slice):
            return ResponseBody(contentLength: slice.length) { writer in
                try await slice.write(to: &writer)
                try await writer.finish(nil)
            }
        case .stream(let next):
            return ResponseBody { writer in
                while let bytes = try await next() { try await writer.write(ByteBuffer(bytes: bytes)) }
                try await writer.finish(nil)
            }
        }
    }

    /// Reads some of a body nobody wants, so that its sender gets to see the answer before the connection ends.
    private func drain(_ head: RequestHead) async throws {
        guard head.fields[.expect] == nil else { return }
        var left = 64 << 20
        for try await buffer in head.request.body {
            left -= buffer.readableBytes
            if left < 0 { return }
        }
    }

    private func answer(_ head: RequestHead, _ identifiers: (trace: String, request: String)) async -> Reply {
        if configuration.forcesTLS, head.forwardedScheme != "https",
            !head.path.hasPrefix("/__"), let host = head.host
        {
            return Reply(308, fields: [.location: "https://\(host)\(head.target)"])
        }
        if let index = rawRoute(head) {
            return await answerRaw(index, head)
        }
        if let proxy = proxies.first(where: { head.path.hasPrefix($0.prefix) }) {
            do {
                return await proxy.forward(head, body: try await BodyReader.read(head, configuration.bodyLimit))
            } catch {
                return refusal(error, ErrorBody.Context(method: proxy.service))
            }
        }
        let path = head.path.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
        switch path.first {
        case "api":
            return await answerAPI(head, path, identifiers)
        case "references", "schemas":
            return await answerDocument(head, path)
        default:
            return await answerRoot(head, path, identifiers)
        }
    }

    // MARK: - Who answers

    private func answerAPI(
        _ head: RequestHead,
        _ path: ArraySlice<Substring>,
        _ identifiers: (trace: String, request: String)
    ) async -> Reply {
        switch routes.find(head.method, path) {
        case .none:
            return .notFound
        case .methods(let methods):
            let all = methods.contains("GET") ? methods.union(["HEAD", "OPTIONS"]) : methods.union(["OPTIONS"])
            return Reply(200, fields: [.allow: all.sorted().joined(separator: ",")])
        case .route(let route, let captures):
            return await call(route, captures, head, identifiers)
        }
    }

    private func call(
        _ route: Route,
        _ captures: [(name: String, raw: Substring)],
        _ head: RequestHead,
        _ identifiers: (trace: String, request: String)
    ) async -> Reply {
        var logger = Logger.current
        logger[metadataKey: "request.id"] = .string(identifiers.request)
        logger[metadataKey: "trace.id"] = .string(identifiers.trace)
        return await withLogger(logger) { _ in
            await APICall(dispatcher: self, route: route, head: head, identifiers: identifiers).answer(captures)
        }
    }

    /// Answers a path of an API that is mounted at the server's root.
    private func answerMounted(
        _ head: RequestHead,
        _ path: ArraySlice<Substring>,
        _ identifiers: (trace: String, request: String)
    ) async -> Reply {
        let context = ErrorBody.Context(method: "unknown", shape: routes.mountedErrors ?? .taskcluster)
        switch routes.findMounted(head.method, path) {
        case .none:
            guard context.shape == .problem else { return .notFound }
            return refusal(APIError(.resourceNotFound, "There is nothing at this path"), context)
        case .methods(let methods):
            let all = methods.contains("GET") ? methods.union(["HEAD", "OPTIONS"]) : methods.union(["OPTIONS"])
            let allow = all.sorted().joined(separator: ",")
            if head.method == "OPTIONS" { return Reply(200, fields: [.allow: allow]) }
            let code = APIErrorCode.custom("MethodNotAllowed", 405)
            var reply = refusal(APIError(code, "This path answers \(allow)"), context)
            reply.fields[.allow] = allow
            return reply
        case .route(let route, let captures):
            return await call(route, captures, head, identifiers)
        }
    }

    private func answerDocument(_ head: RequestHead, _ path: ArraySlice<Substring>) async -> Reply {
        guard var document = references.document(Array(path)) else { return .notFound }
        if path.elementsEqual(["references", "references.json"]) {
            // Neighbours have theirs; one that does not answer is left out.
            for proxy in proxies where !proxy.references.isEmpty {
                References.merge(await proxy.documents(), into: &document)
            }
        }
        return reading(head) { [document] in .json(document) }
    }

    private func answerRoot(
        _ head: RequestHead,
        _ path: ArraySlice<Substring>,
        _ identifiers: (trace: String, request: String)
    ) async -> Reply {
        guard path.count == 1 || (path.count == 2 && path.last == "") else {
            return await answerMounted(head, path, identifiers)
        }
        switch path.first {
        case "__version__":
            return reading(head) { .json(health.version()) }
        case "__lbheartbeat__":
            return reading(head) { .json([:]) }
        case "__heartbeat__":
            let (value, status) = await health.heartbeat()
            return reading(head) { .json(value, status) }
        case "metrics":
            return reading(head) { .text(Metrics.exposition(), type: Metrics.contentType) }
        case "robots.txt":
            return reading(head) { .text("User-Agent: *\nDisallow: /\n") }
        default:
            return await answerMounted(head, path, identifiers)
        }
    }

    /// Answers a path that can only be read.
    private func reading(_ head: RequestHead, _ reply: () -> Reply) -> Reply {
        switch head.request.method {
        case .get, .head: reply()
        case .options: Reply(200, fields: [.allow: "GET,HEAD,OPTIONS"])
        default: .notFound
        }
    }

    // MARK: - Raw routes

    private func rawRoute(_ head: RequestHead) -> Int? {
        guard !raw.isEmpty else { return nil }
        return raw.firstIndex {
            head.path.hasPrefix($0.prefix) && (head.method == "OPTIONS" || $0.answers(head.method))
        }
    }

    private func answerRaw(_ index: Int, _ head: RequestHead) async -> Reply {
        let route = raw[index]
        guard head.method != "OPTIONS" || route.method == nil else {
            let methods = raw.filter { head.path.hasPrefix($0.prefix) }.compactMap(\.method?.rawValue)
            return Reply(200, fields: [.allow: (methods + ["OPTIONS"]).joined(separator: ",")])
        }
        let started = ContinuousClock.now
        let reply: Reply
        do {
            reply = try self.reply(to: head, try await route.handler(RawRequest(head: head, prefix: route.prefix)))
        } catch {
            reply = refusal(error, ErrorBody.Context(method: route.name))
        }
        let seconds = (ContinuousClock.now - started).seconds
        rawMetrics[index].record(status: reply.status, seconds: seconds)
        Logger.current.debug(
            "raw route",
            metadata: ["name": .string(route.name), "statusCode": .stringConvertible(reply.status)]
        )
        return reply
    }

    private func reply(to head: RequestHead, _ response: RawResponse) throws -> Reply {
        let fields = HTTPFields(pairs: response.headers)
        switch response.body {
        case .none:
            return Reply(response.status, fields: fields)
        case .bytes(let bytes):
            return Reply(response.status, fields: fields, body: .bytes(bytes))
        case .file(let path):
            guard
                let reply = FileReply.make(path: path, status: response.status, own: fields, request: head.fields)
            else {
                throw APIError(.resourceNotFound, "There is no such file")
            }
            return reply
        case .stream(let next):
            return Reply(response.status, fields: fields, body: .stream(next))
        }
    }

    // MARK: - Refusals

    /// Turns an error into an answer; what is not meant for callers is logged and hidden.
    func refusal(_ error: any Error, _ context: ErrorBody.Context) -> Reply {
        if error is ClientLeft { return Reply(ClientLeft.status) }
        guard let known = error as? APIError else {
            let incident = Identifiers.uuid()
            // Work that is cancelled because the server stops is no failure of the server.
            Logger.current.log(
                level: error is CancellationError ? .debug : .error,
                "request failed",
                metadata: [
                    "incidentId": .string(incident),
                    "name": .string(context.method),
                    "error": .string(String(reflecting: error)),
                ]
            )
            let hidden = APIError(.internalServerError, "Internal Server Error, incidentId \(incident).")
            return Self.refusal(hidden, context)
        }
        var reply = Self.refusal(known, context)
        if known.code == .authenticationFailed {
            reply.fields[.wwwAuthenticate] = "hawk"
        }
        // The rest of an oversized body is not worth reading.
        reply.closes = known.code == .inputTooLarge
        return reply
    }

    private static func refusal(_ error: APIError, _ context: ErrorBody.Context) -> Reply {
        switch context.shape {
        case .taskcluster:
            .json(ErrorBody.json(error, context, at: .now()), error.code.status)
        case .problem:
            .json(
                ErrorBody.problem(error),
                error.code.status,
                fields: [.contentType: "application/problem+json"]
            )
        }
    }
}

/// Ends a connection after its last answer.
struct ConnectionEnds: Error {}
