// SPDX-License-Identifier: MPL-2.0

public import APIServer
import JSON
import Schedules
public import StepKit
import Synchronization

/// The API of pipelines: the step contract, and what operators do.
public struct PipelineAPI: Sendable {
    private let steps: StepAPI<PipelineService>
    private let service: PipelineService
    private let runner: StepRunner
    private let lastTick = LastTick()

    /// Puts the API in front of a service; the runner looks when somebody asks for it.
    public init(service: PipelineService, runner: StepRunner, tokens: TokenVerifier?, isPublic: Bool) {
        self.service = service
        self.runner = runner
        steps = StepAPI(
            service: service,
            store: service.store,
            gate: StepGate(service: "shipit_pipeline", tokens: tokens, isPublic: isPublic)
        )
    }

    /// The whole API.
    public func api(schemas: SchemaStore) -> API {
        steps.api(schemas: schemas, adding: pipelines + operators + freezes + locks)
    }

    private var pipelines: [Endpoint] {
        let make = steps.endpoints
        return [
            make.open(.post, "/", name: "createHere", title: "Create a pipeline", handler: createHere),
            make.endpoint(
                .get,
                "/<uid>/explain",
                name: "explain",
                verb: "view",
                title: "Say why it waits",
                handler: explain
            ),
            make.endpoint(
                .get,
                "/<uid>/graph",
                name: "graph",
                verb: "view",
                query: ["format": "^(json|dot|svg)$"],
                title: "Draw the steps",
                handler: graph
            ),
            make.endpoint(
                .put,
                "/ticktock",
                name: "ticktock",
                verb: "retry",
                title: "Look at what is due",
                handler: tick
            ),
        ]
    }

    private var operators: [Endpoint] {
        let make = steps.endpoints
        return [
            make.endpoint(.post, "/<uid>/pause", name: "pause", verb: "pause", title: "Pause") {
                try await pause($0, $1, true)
            },
            make.endpoint(.post, "/<uid>/resume", name: "resume", verb: "pause", title: "Resume") {
                try await pause($0, $1, false)
            },
            make.endpoint(.post, "/<uid>/retry", name: "retry", verb: "retry", title: "Retry", handler: retry),
            make.endpoint(
                .post,
                "/<uid>/steps/<step>/retry",
                name: "retryStep",
                verb: "retry",
                title: "Retry a step",
                handler: retryStep
            ),
            make.endpoint(
                .post,
                "/<uid>/steps/<step>/skip",
                name: "skipStep",
                verb: "resolve",
                title: "Skip a step",
                handler: skip
            ),
            make.endpoint(
                .post,
                "/<uid>/steps/<step>/resolve",
                name: "resolveStep",
                verb: "resolve",
                title: "Say how a step ended",
                handler: resolve
            ),
            make.endpoint(
                .post,
                "/<uid>/steps/<step>/cancel",
                name: "cancelStep",
                verb: "cancel",
                title: "Cancel a step",
                handler: cancelStep
            ),
            make.endpoint(
                .put,
                "/<uid>/steps/<step>/parameters",
                name: "setParameters",
                verb: "resolve",
                title: "Replace the parameters of a step",
                handler: setParameters
            ),
            make.endpoint(
                .post,
                "/<uid>/steps/<step>/override-freeze",
                name: "overrideFreeze",
                verb: "freeze/manage",
                title: "Start a step in spite of a freeze",
                handler: overrideFreeze
            ),
        ]
    }

    private var freezes: [Endpoint] {
        let make = steps.endpoints
        return [
            make.endpoint(.get, "/freezes", name: "listFreezes", verb: "view", title: "List freezes") { _, _ in
                .json(["freezes": .array(try await service.runs.freezeList())])
            },
            make.endpoint(
                .put,
                "/freezes/<name>",
                name: "saveFreeze",
                verb: "freeze/manage",
                title: "Make or change a freeze",
                handler: saveFreeze
            ),
            make.endpoint(
                .delete,
                "/freezes/<name>",
                name: "deleteFreeze",
                verb: "freeze/manage",
                title: "End a freeze",
                handler: deleteFreeze
            ),
        ]
    }

    private var locks: [Endpoint] {
        let make = steps.endpoints
        return [
            make.endpoint(.get, "/locks", name: "listLocks", verb: "view", title: "List locks") { _, _ in
                let (held, wanted) = try await service.runs.locks()
                return .json(["held": .array(held.map(Self.json)), "wanted": .array(wanted.map(Self.json))])
            },
            make.endpoint(
                .delete,
                "/locks/<name>",
                name: "breakLock",
                verb: "lock/break",
                title: "Take a lock from its holder",
                handler: breakLock
            ),
        ]
    }

    private static func json(_ lock: RunStore.Lock) -> JSONValue {
        [
            "name": .string(lock.name), "pipeline": .string(lock.pipeline), "step": .string(lock.step),
            "since": .string(lock.since.iso8601),
        ]
    }

    // MARK: - Pipelines

    /// The form of the first design: `{"uid", "pipeline"}`, or a whole definition, at the root.
    private func createHere(_ request: APIRequest) async throws -> APIResponse {
        let body = try request.jsonObject()
        guard let uid = body["uid"]?.string else { throw StepProblem.invalid("uid is missing", code: "invalid_uid") }
        let actor = try await steps.endpoints.gate.admit(request, "create", uid)
        guard let pipeline = body["pipeline"] else { return try await steps.create(uid, body, request, actor) }
        try body.allowOnly(["uid", "pipeline"])
        guard let pipeline = pipeline.object else { throw StepProblem.invalid("pipeline has to be an object") }
        return try await steps.create(uid, pipeline, request, actor)
    }

    private func explain(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        .json(try await service.explanation(request.parameter("uid")))
    }

    private func graph(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let view = try await service.view(request.parameter("uid"))
        let drawing = GraphDrawing(view.evaluation.definition, view.evaluation.ordered)
        switch request.query["format"] {
        case "dot": return .text(drawing.dot, contentType: "text/vnd.graphviz; charset=utf-8")
        case "svg": return .text(drawing.svg, contentType: "image/svg+xml; charset=utf-8")
        default: return .json(drawing.json)
        }
    }

    private func tick(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        guard lastTick.mayTick() else {
            throw StepProblem(429, "too_many_requests", "Once a second is enough", headers: ["Retry-After": "1"])
        }
        return .json(["evaluated": JSONValue(try await runner.runOnce(limit: 500))])
    }

    // MARK: - Operators

    private func answer(_ step: Step) async throws -> APIResponse {
        .json(.object(step.status(info: try await service.info(of: step))), headers: ["ETag": step.entityTag])
    }

    private func operate(
        _ request: APIRequest,
        _ actor: StepActor,
        reopens: Bool = false,
        _ body: (inout Evaluation, inout StepTransaction) async throws -> Void
    ) async throws -> APIResponse {
        let step = try await service.operate(
            request.parameter("uid"),
            actor: actor.name,
            match: request.match,
            key: try request.requestKey(service.store, actor),
            reopens: reopens,
            body
        )
        return try await answer(step)
    }

    private func pause(_ request: APIRequest, _ actor: StepActor, _ isPaused: Bool) async throws -> APIResponse {
        let step = try await service.setPaused(
            isPaused,
            request.parameter("uid"),
            actor: actor.name,
            match: request.match,
            key: try request.requestKey(service.store, actor)
        )
        return try await answer(step)
    }

    private func retry(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let body = try request.jsonObject()
        try body.allowOnly(["steps", "from_failed"])
        var names: Set<String>?
        if let list = body["steps"] {
            guard let array = list.array, !array.isEmpty, array.allSatisfy({ $0.string != nil }) else {
                throw StepProblem.invalid("steps has to be a list of names")
            }
            names = Set(array.compactMap(\.string))
        }
        let chosen = names
        return try await operate(request, actor, reopens: true) { evaluation, change in
            let all = try evaluation.retry(chosen)
            change.record("retry", ["steps": JSONValue(all)])
        }
    }

    private func retryStep(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let step = request.parameter("step")
        return try await operate(request, actor, reopens: true) { evaluation, change in
            let all = try evaluation.retry([step])
            change.record("retry", ["steps": JSONValue(all)])
        }
    }

    /// Why an operator does something, which the audit has to say.
    private static func reason(_ body: JSONObject) throws(StepProblem) -> String {
        guard let reason = body["reason"]?.string, !reason.isEmpty else {
            throw StepProblem.invalid("reason has to say why")
        }
        return String(reason.prefix(2000))
    }

    private func skip(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let step = request.parameter("step")
        return try await operate(request, actor) { evaluation, change in
            try evaluation.skip(step)
            change.record("skip", subject: step)
        }
    }

    private func resolve(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let step = request.parameter("step")
        let body = try request.jsonObject()
        try body.allowOnly(["status", "reason"])
        let reason = try Self.reason(body)
        let state: RunState
        switch body["status"]?.string {
        case "success": state = .completed
        case "failure": state = .failed
        default: throw StepProblem.invalid("status has to be success or failure")
        }
        return try await operate(request, actor) { evaluation, change in
            try evaluation.resolve(step, state, reason)
            change.record("resolve", subject: step, ["state": .string(state.rawValue), "reason": .string(reason)])
        }
    }

    private func cancelStep(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let step = request.parameter("step")
        return try await operate(request, actor) { evaluation, change in
            try evaluation.cancel(step)
            change.record("cancel", subject: step)
        }
    }

    private func setParameters(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let step = request.parameter("step")
        let body = try request.jsonObject()
        return try await operate(request, actor) { evaluation, change in
            try evaluation.setParameters(step, body)
            let digest = CanonicalJSON.digest(.object(body))
            change.record("parameters", subject: step, ["sha256": .string(Hexadecimal.encoded(digest))])
        }
    }

    private func overrideFreeze(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let step = request.parameter("step")
        let body = try request.jsonObject()
        try body.allowOnly(["reason"])
        let reason = try Self.reason(body)
        return try await operate(request, actor) { evaluation, change in
            try evaluation.overrideFreeze(step)
            change.record("override_freeze", subject: step, ["reason": .string(reason)])
        }
    }

    // MARK: - Freezes and locks

    private func saveFreeze(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let uid = request.parameter("name")
        if let problem = StepUID.problem(with: uid) { throw StepProblem.invalid(problem, code: "invalid_uid") }
        let body = try request.jsonObject()
        try body.allowOnly(["uid", "name", "reason", "start", "end", "match"])
        guard let start = body["start"]?.string.flatMap({ Timestamp($0) }),
            let end = body["end"]?.string.flatMap({ Timestamp($0) }), start < end
        else { throw StepProblem.invalid("start and end have to be dates and times, start first") }
        let match = body["match"]?.object ?? [:]
        try match.allowOnly(["labels", "api_url_prefix", "step_uid_glob"])
        let freeze = Freeze(
            uid: uid,
            start: start,
            end: end,
            labels: match["labels"]?.object ?? [:],
            apiPrefix: match["api_url_prefix"]?.string,
            stepPattern: match["step_uid_glob"]?.string
        )
        try await service.runs.saveFreeze(
            freeze,
            name: body["name"]?.string ?? uid,
            reason: try Self.reason(body),
            by: actor.name,
            at: service.store.now()
        )
        try await service.freezesChanged()
        return .json([:])
    }

    private func deleteFreeze(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let uid = request.parameter("name")
        guard try await service.runs.deleteFreeze(uid) else {
            throw StepProblem(404, "not_found", "There is no freeze \(uid)")
        }
        try await service.freezesChanged()
        return .json([:])
    }

    private func breakLock(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let name = request.parameter("name")
        guard let lock = try await service.runs.breakLock(name) else {
            throw StepProblem(404, "not_found", "Nobody holds the lock \(name)")
        }
        _ = try await service.store.change(lock.pipeline, actor: actor.name) { change in
            change.record("lock_broken", subject: lock.step, ["lock": .string(name)])
        }
        try await service.store.wake(service.runs.waiters([name]))
        return .json(Self.json(lock))
    }
}

extension PipelineService {
    /// Lets the pipelines that go on find out about freezes; what is beyond the limit finds out a little later.
    func freezesChanged() async throws {
        try await store.wake(runs.open(limit: 1000))
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
