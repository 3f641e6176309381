// SPDX-License-Identifier: MPL-2.0

public import APIServer
import JSON
import Schedules
public import StepKit
import Synchronization

/// The API of pipelines: the step contract, and what operators do.
public struct PipelineAPI: Sendable {
    let steps: StepAPI<PipelineService>
    let service: PipelineService
    private let runner: StepRunner
    private let lastTick = LastTick()

    /// Who is asked before operators decide about steps.
    let guardian: (any StepGuardian)?

    /// Puts the API in front of a service; the runner looks when somebody asks for it.
    public init(
        service: PipelineService,
        runner: StepRunner,
        tokens: TokenVerifier?,
        isPublic: Bool,
        guardian: (any StepGuardian)? = nil
    ) {
        self.guardian = guardian
        self.service = service
        self.runner = runner
        steps = StepAPI(
            service: service,
            store: service.store,
            gate: StepGate(service: "shipit_pipeline", tokens: tokens, isPublic: isPublic)
        )
    }

    /// The whole API, with endpoints of others that are served at the same root.
    public func api(schemas: SchemaStore, adding more: [Endpoint] = []) -> API {
        steps.api(schemas: schemas, adding: pipelines + operators + freezes + locks + templates + more)
    }

    /// An endpoint for those who may do what a verb says.
    func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        _ name: String,
        verb: String,
        query: [String: QueryRule] = [:],
        _ title: String,
        _ handler: @escaping StepEndpoints.Handler
    ) -> Endpoint {
        steps.endpoints.endpoint(method, route, name: name, verb: verb, query: query, title: title, handler: handler)
    }

    /// The name that a path gives to something that is no pipeline, if it is one.
    static func name(_ request: APIRequest) throws(StepProblem) -> String {
        let name = request.parameter("name")
        if let problem = StepUID.problem(with: name) { throw StepProblem.invalid(problem, code: "invalid_uid") }
        return name
    }

    private var pipelines: [Endpoint] {
        [
            steps.endpoints.open(.post, "/", name: "createHere", title: "Create a pipeline", handler: createHere),
            endpoint(.get, "/<uid>/explain", "explain", verb: "view", "Say why it waits", explain),
            endpoint(
                .get,
                "/<uid>/graph",
                "graph",
                verb: "view",
                query: ["format": "^(json|dot|svg)$"],
                "Draw the steps",
                graph
            ),
            endpoint(
                .get,
                "/events",
                "journal",
                verb: "view",
                query: ["limit": .limit, "continuationToken": .continuationToken, "verify": .bool],
                "Read what was done beside single pipelines",
                journal
            ),
            endpoint(.put, "/ticktock", "ticktock", verb: "retry", "Look at what is due", tick),
        ]
    }

    /// The form of the first design: `{"uid", "pipeline"}`, or a whole definition, at the root.
    ///
    /// The runner of the first version sends the two as the fields of a form, the pipeline as JSON.
    private func createHere(_ request: APIRequest) async throws -> APIResponse {
        let body = try Self.formOrJSON(request)
        guard let uid = body["uid"]?.string else { throw StepProblem.invalid("uid is missing", code: "invalid_uid") }
        let actor = try await steps.endpoints.gate.admit(request, "create", uid)
        let key = try request.requestKey(service.store, actor)
        guard let pipeline = body["pipeline"] else {
            return try await steps.create(uid, body, request, actor, key: key)
        }
        try body.allowOnly(["uid", "pipeline"])
        guard let pipeline = pipeline.object else { throw StepProblem.invalid("pipeline has to be an object") }
        return try await steps.create(uid, pipeline, request, actor, key: key)
    }

    private static func formOrJSON(_ request: APIRequest) throws(StepProblem) -> JSONObject {
        let type = (request.header("content-type") ?? "").prefix { $0 != ";" }.lowercased()
        guard type == "application/x-www-form-urlencoded" else { return try request.jsonObject() }
        var body: JSONObject = [:]
        for (name, text) in FormBody(request.rawBody).fields {
            guard name == "pipeline" else {
                body[name] = .string(text)
                continue
            }
            do {
                body[name] = try JSONValue(parsing: text)
            } catch {
                throw StepProblem.invalid("The field pipeline is not JSON: \(error.message)", code: "malformed_payload")
            }
        }
        return body
    }

    private func explain(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        .json(try await service.explanation(request.parameter("uid")))
    }

    private func graph(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let view = try await service.view(request.parameter("uid"))
        let reasons = PipelineService.reasons(view).map { run, reasons in
            (run.uid, reasons.map(\.detail).filter { !$0.isEmpty }.joined(separator: "; "))
        }
        let drawing = GraphDrawing(
            view.evaluation.definition,
            view.evaluation.ordered,
            reasons: Dictionary(reasons) { first, _ in first }
        )
        switch request.query["format"] {
        case "dot": return .text(drawing.dot, contentType: "text/vnd.graphviz; charset=utf-8")
        case "svg": return .text(drawing.svg, contentType: "image/svg+xml; charset=utf-8")
        default: return .json(drawing.json)
        }
    }

    private func journal(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        try await StepAPI<PipelineService>.audit(
            request,
            brokenLink: { try await service.journal.brokenLink() },
            events: { try await service.journal.entries(after: $0, limit: $1) }
        )
    }

    private func tick(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        guard lastTick.mayTick() else {
            throw StepProblem(429, "too_many_requests", "Once a second is enough", headers: ["Retry-After": "1"])
        }
        return .json(["evaluated": JSONValue(try await runner.runOnce(limit: 500))])
    }
}

/// Remembers when somebody last asked for a look.
private final class LastTick: Sendable {
    private let last = Mutex<ContinuousClock.Instant?>(nil)

    /// Whether the last time is a second ago.
    func mayTick() -> Bool {
        last.withLock { last in
            let now = ContinuousClock.now
            if let last, now - last < .seconds(1) { return false }
            last = now
            return true
        }
    }
}
