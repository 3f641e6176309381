// SPDX-License-Identifier: MPL-2.0

public import APIServer
public import JSON
import Postgres
import Schedules
import ServiceLifecycle

/// What makes a step service of its own of the contract that all share.
public protocol StepService: Sendable {
    /// The name in scopes is `shipit_` and this.
    var name: String { get }
    /// The path under which the original answered, such as `/steps`; nil for none.
    var alias: String? { get }
    /// Whether the list at the alias holds names alone.
    var aliasListsNames: Bool { get }
    /// Whether deleting at the alias cancels what goes on without being asked to, as the original did.
    var aliasDeletesAll: Bool { get }

    /// Checks what a caller wants and fills in the defaults; equal results are the same request.
    func definition(_ body: JSONObject, uid: String, origin: StepOrigin) async throws -> StepDefinition
    /// Begins a new step in the transaction that creates it.
    func begin(_ change: inout StepTransaction) async throws
    /// Ends a step that goes on, or begins to.
    func cancel(_ change: inout StepTransaction, reason: String?) async throws
    /// The step as it is now, where somebody else may have changed what it is about.
    func refreshed(_ step: Step) async throws -> Step
    /// What the service tells of a step beyond the contract.
    func info(of step: Step) async throws -> JSONObject
    /// The step in lists.
    func item(_ step: Step) -> JSONObject
    /// What is told with a definition beside it.
    func resolved(_ step: Step) async throws -> JSONObject?
    /// The status as text, where the service has means to give it without making it anew; nil is made anew.
    func rendered(_ uid: String) async throws -> RenderedStatus?
    /// What would be done for a definition, told instead of doing it; nil if the service has no plans to tell.
    func plan(_ definition: StepDefinition) -> JSONObject?
}

extension StepService {
    /// None.
    public var alias: String? { nil }
    /// Whole steps.
    public var aliasListsNames: Bool { false }
    /// It does not.
    public var aliasDeletesAll: Bool { false }
    /// Its status.
    public func item(_ step: Step) -> JSONObject { step.status }
    /// Nothing.
    public func resolved(_ step: Step) async throws -> JSONObject? { nil }
    /// As it is stored.
    public func refreshed(_ step: Step) async throws -> Step { step }
    /// What is stored with the step.
    public func info(of step: Step) async throws -> JSONObject { step.info }
    /// None.
    public func rendered(_ uid: String) async throws -> RenderedStatus? { nil }
    /// None.
    public func plan(_ definition: StepDefinition) -> JSONObject? { nil }
}

/// What a step shall do, in the form in which it is stored.
public struct StepDefinition: Sendable {
    /// The stored form.
    public var value: JSONValue
    /// Words to find the step by.
    public var labels: JSONObject

    /// Makes a definition.
    public init(_ value: JSONValue, labels: JSONObject = [:]) {
        self.value = value
        self.labels = labels
    }
}

/// A step's status as it is sent.
public struct RenderedStatus: Sendable {
    /// The JSON text.
    public let body: [UInt8]
    /// The tag of the version it describes.
    public let entityTag: String

    /// Describes a text.
    public init(body: [UInt8], entityTag: String) {
        self.body = body
        self.entityTag = entityTag
    }
}

/// The contract of step services over HTTP.
public struct StepAPI<Service: StepService>: Sendable {
    /// What makes the service its own.
    public let service: Service
    /// The steps.
    public let store: StepStore
    /// Who is admitted, and how endpoints are made.
    public let endpoints: StepEndpoints

    /// Puts the contract in front of a service.
    public init(service: Service, store: StepStore, gate: StepGate) {
        self.service = service
        self.store = store
        endpoints = StepEndpoints(gate: gate)
    }

    /// The whole API with the endpoints that the service adds.
    public func api(schemas: SchemaStore, adding more: [Endpoint] = []) -> API {
        API(
            service: "shipit-\(service.name)",
            title: "Steps",
            description: "Steps of the service \(service.name).",
            schemas: schemas,
            endpoints: common + more,
            mount: .root,
            errors: .problem
        )
    }

    private var common: [Endpoint] {
        var list = [
            endpoints.endpoint(
                .get,
                "/",
                name: "list",
                verb: "view",
                query: Self.listOptions,
                title: "List steps",
                handler: list
            )
        ]
        for base in [""] + (service.alias.map { [$0] } ?? []) {
            let suffix = base.isEmpty ? "" : "Alias"
            list += [
                endpoints.endpoint(
                    .put,
                    "\(base)/<uid>",
                    name: "create\(suffix)",
                    verb: "create",
                    query: ["dry_run": .bool],
                    title: "Create a step",
                    handler: create
                ),
                endpoints.endpoint(
                    .get,
                    "\(base)/<uid>",
                    name: "get\(suffix)",
                    verb: "view",
                    title: "Read a definition",
                    handler: { try await definition($0, $1, resolved: true) }
                ),
                endpoints.endpoint(
                    .get,
                    "\(base)/<uid>/definition",
                    name: "definition\(suffix)",
                    verb: "view",
                    title: "Read a definition",
                    handler: { try await definition($0, $1, resolved: false) }
                ),
                endpoints.endpoint(
                    .get,
                    "\(base)/<uid>/status",
                    name: "status\(suffix)",
                    verb: "view",
                    query: ["wait": "^[0-9]{1,2}$"],
                    title: "Read the status",
                    handler: status
                ),
                endpoints.endpoint(
                    .delete,
                    "\(base)/<uid>",
                    name: "delete\(suffix)",
                    verb: "delete",
                    query: ["force": .bool],
                    title: "Delete a step",
                    handler: { try await delete($0, $1, all: !base.isEmpty && service.aliasDeletesAll) }
                ),
                endpoints.endpoint(
                    .post,
                    "\(base)/<uid>/cancel",
                    name: "cancel\(suffix)",
                    verb: "cancel",
                    title: "Cancel a step",
                    handler: cancel
                ),
                endpoints.endpoint(
                    .get,
                    "\(base)/<uid>/events",
                    name: "events\(suffix)",
                    verb: "view",
                    query: [
                        "limit": .limit, "continuationToken": .continuationToken, "verify": .bool, "deleted": .bool,
                    ],
                    title: "Read the audit",
                    handler: events
                ),
            ]
        }
        if let alias = service.alias {
            list.append(
                endpoints.endpoint(
                    .get,
                    alias,
                    name: "listAlias",
                    verb: "view",
                    query: ["state": .words],
                    title: "List steps",
                    handler: aliasList
                )
            )
        }
        return list
    }

    // MARK: - Lists

    private static var listOptions: [String: QueryRule] {
        [
            "status": .words, "state": .words, "uid_prefix": .any, "created_after": .any, "created_before": .any,
            "pipeline": .any, "created_by": .any, "label": .any, "limit": .limit,
            "continuationToken": .continuationToken,
        ]
    }

    private func list(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        var filter = StepFilter()
        for word in request.words("status") {
            guard let status = StepStatus(rawValue: word) else {
                throw StepProblem.invalid("No status is called \(word)")
            }
            filter.states.formUnion(status.states)
        }
        filter.states.formUnion(try states(request))
        filter.prefix = request.query["uid_prefix"]
        filter.createdAfter = try request.moment("created_after")
        filter.createdBefore = try request.moment("created_before")
        filter.pipeline = request.query["pipeline"]
        filter.createdBy = request.query["created_by"]
        if let label = request.query["label"] {
            let parts = label.split(separator: ":", maxSplits: 1)
            guard parts.count == 2 else { throw StepProblem.invalid("A label is a key, a colon and a value") }
            filter.labels[String(parts[0])] = .string(String(parts[1]))
        }
        let size = try request.pageSize()
        let page = PageRequest(limit: size, continuation: request.page(maximum: size).continuation)
        let after = try page.int(0).map { (created: $0, id: try page.int(1) ?? 0) }
        // Nothing was created outside the years that the database knows.
        guard after.map({ (0...Int(Timestamp.farFuture.milliseconds)).contains($0.created) }) ?? true else {
            throw Continuation.invalid
        }
        let steps = try await store.list(filter, after: after, limit: page.fetch)
        return .json(
            page.reply("steps", steps) { step in
                [JSONValue(Int(step.created.milliseconds)), JSONValue(step.id)]
            } json: { step in
                .object(service.item(step))
            }
        )
    }

    private func states(_ request: APIRequest) throws(StepProblem) -> Set<StepState> {
        var states: Set<StepState> = []
        for word in request.words("state") {
            guard let state = StepState(rawValue: word) else { throw StepProblem.invalid("No state is called \(word)") }
            states.insert(state)
        }
        return states
    }

    private func aliasList(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        var filter = StepFilter()
        filter.states = try states(request)
        if filter.states.isEmpty { filter.states = [.running] }
        let steps = try await store.list(filter, after: nil, limit: 500)
        return .json(.array(steps.map { service.aliasListsNames ? .string($0.uid) : .object($0.status) }))
    }

    // MARK: - One step

    private func create(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        try await create(request.parameter("uid"), try request.jsonObject(), request, actor)
    }

    /// Creates the step of a body, or finds the one that is the same; a request that comes again under its `key` gets its
    /// first answer.
    public func create(
        _ uid: String,
        _ body: JSONObject,
        _ request: APIRequest,
        _ actor: StepActor,
        key: StepStore.RequestKey? = nil
    ) async throws -> APIResponse {
        if let problem = StepUID.problem(with: uid) { throw StepProblem.invalid(problem, code: "invalid_uid") }
        if let other = body["uid"], other.string != uid {
            throw StepProblem.invalid("The uid of the body is not the uid of the path", code: "uid_mismatch")
        }
        guard let depth = Int(request.header("x-shipit-depth") ?? "0"), (0...1000).contains(depth) else {
            throw StepProblem.invalid("X-Shipit-Depth has to be how deep the step is nested")
        }
        let origin = StepOrigin(
            actor: actor.name,
            pipeline: request.header("x-shipit-pipeline").map { String($0.prefix(80)) },
            depth: depth,
            ancestors: request.header("x-shipit-ancestors")?.split(separator: ",").map(String.init) ?? [],
            requester: request.header("x-shipit-requester").map { String($0.prefix(320)) }
        )
        let definition = try await service.definition(body, uid: uid, origin: origin)
        if request.flag("dry_run") {
            guard let plan = service.plan(definition) else { throw StepProblem.invalid("There is no dry run of this") }
            return .json(.object(plan))
        }
        let creation = try await store.create(
            uid,
            definition: definition.value,
            labels: definition.labels,
            origin: origin,
            key: key,
            service.begin
        )
        let step =
            switch creation {
            case .created(let step), .existing(let step): step
            }
        return .json([:], headers: ["ETag": step.entityTag, "Location": "/\(uid)"])
    }

    private func definition(
        _ request: APIRequest,
        _ actor: StepActor,
        resolved isResolved: Bool
    ) async throws -> APIResponse {
        let step = try await existing(request, load: true)
        var definition = step.definition
        if isResolved, let resolved = try await service.resolved(step) { definition["resolved"] = .object(resolved) }
        return .json(definition, headers: ["ETag": step.entityTag])
    }

    private func existing(_ request: APIRequest, load: Bool = false) async throws -> Step {
        let uid = request.parameter("uid")
        guard StepUID.problem(with: uid) == nil,
            let step = try await load ? store.load(uid) : store.find(uid)
        else { throw StepProblem.unknown(uid) }
        return step
    }

    private func status(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let tags = EntityTags(request.header("if-none-match"))
        if request.query["wait"] == nil, let status = try await service.rendered(request.parameter("uid")) {
            let headers = ["ETag": status.entityTag]
            if tags?.contains(status.entityTag) == true { return .bodyless(304, headers: headers) }
            return .rawJSON(status.body, headers: headers)
        }
        var step = try await service.refreshed(try await existing(request))
        if let text = request.query["wait"] {
            guard let seconds = Int(text), (1...60).contains(seconds) else {
                throw StepProblem.invalid("wait has to be 1 to 60 seconds")
            }
            if tags == nil || tags?.contains(step.entityTag) == true {
                let known = step
                step = try await request.withDisconnect {
                    try await waitForChange(of: known, atMost: .seconds(seconds))
                }
            }
        }
        let headers = ["ETag": step.entityTag]
        if tags?.contains(step.entityTag) == true { return .bodyless(304, headers: headers) }
        return .json(.object(step.status(info: try await service.info(of: step))), headers: headers)
    }

    /// The step after its next change, or as it is when the time is over.
    @concurrent
    private func waitForChange(of known: Step, atMost limit: Duration) async throws -> Step {
        let watch = store.changes.watch(known.id)
        let deadline = ContinuousClock.now + limit
        while true {
            guard let step = try await store.find(known.uid) else { throw StepProblem.unknown(known.uid) }
            let left = deadline - .now
            if step.version != known.version || step.id != known.id || left <= .zero { return step }
            if Task.isShuttingDownGracefully { return step }
            // Told at once by this process and through the database by others; the limit covers what was not told.
            await watch.wait(min(left, .seconds(2)))
            try Task.checkCancellation()
        }
    }

    private func cancel(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let body = try request.jsonObject()
        try body.allowOnly(["reason"])
        if let reason = body["reason"], reason.string == nil { throw StepProblem.invalid("reason has to be text") }
        let reason = body["reason"]?.string.map { String($0.prefix(2000)) }
        let key = try request.requestKey(store, actor)
        let (step, _) = try await store.change(
            request.parameter("uid"),
            actor: actor.name,
            match: request.match,
            key: key
        ) { change in
            switch change.step.state {
            case .stopping, .cancelled:
                return
            case .completed, .failed, .exception:
                throw StepProblem.conflict("step_closed", "The step is \(change.step.state.rawValue) already")
            case .pending, .starting, .running:
                var data: JSONObject = [:]
                data["reason"] = reason.map { .string($0) }
                change.record("cancel", data)
                try await service.cancel(&change, reason: reason)
            }
        }
        return .json(.object(step.status(info: try await service.info(of: step))), headers: ["ETag": step.entityTag])
    }

    private func delete(_ request: APIRequest, _ actor: StepActor, all: Bool) async throws -> APIResponse {
        let uid = request.parameter("uid")
        let step: Step
        if all || request.flag("force") {
            step = try await store.delete(uid, actor: actor.name, match: request.match) { change in
                change.record("cancel")
                try await service.cancel(&change, reason: "deleted")
            }
        } else {
            step = try await store.delete(uid, actor: actor.name, match: request.match)
        }
        // What has to be cancelled elsewhere takes a moment; it is deleted then, whether or not somebody still waits.
        if !step.state.isTerminal {
            let watch = store.changes.watch(step.id)
            let deadline = ContinuousClock.now + .seconds(20)
            while try await !store.isDeleted(step.id), ContinuousClock.now < deadline {
                await watch.wait(.seconds(1))
            }
        }
        return .json([:])
    }

    // MARK: - Audit

    private func events(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let uid = request.parameter("uid")
        let step: Step
        if request.flag("deleted") {
            guard endpoints.gate.permits(actor, "admin/audit", uid) else {
                throw StepProblem(403, "insufficient_scopes", "The audit of deleted steps is for administrators")
            }
            guard let found = try await store.load(uid, buried: true) else { throw StepProblem.unknown(uid) }
            step = found
        } else {
            step = try await existing(request)
        }
        if !request.flag("verify"), request.header("accept")?.contains("text/event-stream") == true {
            let last = request.header("last-event-id").flatMap { Int($0) } ?? 0
            let feed = EventFeed(store: store, step: step, after: last)
            return .stream(contentType: "text/event-stream") { try await feed.next() }
        }
        return try await Self.audit(
            request,
            brokenLink: { try await store.brokenLink(of: step) },
            events: { try await store.events(of: step.id, after: $0, limit: $1) }
        )
    }

    /// A page of an audit, or whether it is what it was.
    package static func audit(
        _ request: APIRequest,
        brokenLink: () async throws -> Int?,
        events: (_ after: Int, _ limit: Int) async throws -> [StepEvent]
    ) async throws -> APIResponse {
        if request.flag("verify") {
            let broken = try await brokenLink()
            return .json(["verified": JSONValue(broken == nil), "broken_at": broken.map { JSONValue($0) } ?? .null])
        }
        let size = try request.pageSize()
        let page = PageRequest(limit: size, continuation: request.page(maximum: size).continuation)
        let found = try await events(try page.int(0) ?? 0, page.fetch)
        return .json(
            page.reply("events", found) { event in
                [JSONValue(event.sequence)]
            } json: { event in
                .object(event.json)
            }
        )
    }
}
