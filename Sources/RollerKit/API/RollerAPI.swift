// SPDX-License-Identifier: MPL-2.0

package import APIServer
import Core
import Expressions
import JSON
import JSONSchema
import Logging
import Postgres
import Schedules
package import Taskcluster

/// The HTTP interface of roller below `/api/v1/`, in the dialect that its clients have spoken since 2017.
///
/// The order in which a request is checked can be seen from outside and is kept: route, host, what the client accepts,
/// credentials, method, scopes, worker, fields, machine, policy.
package struct RollerAPI: Sendable {
    let settings: RollerAPISettings
    let catalogue: ActionCatalogue
    let jobs: JobStore
    let inventory: InventoryStore
    let credentials: CredentialStore
    let audit: AuditStore
    let gate: RequestGate
    /// What the actions take, compiled once.
    let schemas: [String: JSONSchema]
    let started = ContinuousClock.now

    /// Asks the auth service for its verdict.
    package typealias Verifier = @Sendable (AuthenticationRequest) async throws -> AuthVerdict

    /// Puts the interface together; the catalogue is what workers can do.
    package init(
        settings: RollerAPISettings,
        catalogue: ActionCatalogue,
        jobs: JobStore,
        inventory: InventoryStore,
        credentials: CredentialStore,
        verify: @escaping Verifier
    ) {
        self.settings = settings
        self.catalogue = settings.taskNames.map { catalogue.limited(to: $0).catalogue } ?? catalogue
        self.jobs = jobs
        self.inventory = inventory
        self.credentials = credentials
        audit = AuditStore(pool: inventory.pool)
        gate = RequestGate(settings: settings, verify: verify)
        schemas = self.catalogue.actions.reduce(into: [:]) { schemas, action in
            schemas[action.name] = try? JSONSchema(action.parameters, unknownKeywords: .ignore)
        }
    }

    /// The routes that answer all of it: one, the page of operators, and those of the predecessor where they are wanted.
    package var routes: [RawRoute] {
        let own = RawRoute(anyMethod: "/api/v1/", name: "roller") { request in
            await answer(request, "/api/v1/") { RollerRoute($0) }
        }
        let old = ["/slaves/", "/results"].map { prefix in
            RawRoute(anyMethod: prefix, name: "slaveapi") { request in
                await answer(request, "/") { RollerRoute(predecessor: $0) }
            }
        }
        let page = RawRoute(.get, prefix: RollerPages.path, name: "page") { [gate] request in
            do { try gate.checkHost(request) } catch let refusal as Refusal {
                return Self.json(refusal.status, refusal.body)
            }
            return RollerPages.answer(request)
        }
        return [own, page] + (settings.answersPredecessor ? old : [])
    }

    // MARK: - One request

    private func answer(
        _ raw: RawRequest,
        _ prefix: String,
        _ read: ([String]) -> RollerRoute?
    ) async -> RawResponse {
        let pieces = raw.path.dropFirst(prefix.count).split(separator: "/", omittingEmptySubsequences: false)
        let segments = pieces.compactMap { RawRequest.decoded($0) }
        guard segments.count == pieces.count, let route = read(segments) else {
            return Self.json(404, ["detail": "Not found."], headers: gate.corsFields(raw, methods: ["GET", "POST"]))
        }
        let methods = route.methods(strict: settings.isStrict)
        var fields = gate.corsFields(raw, methods: route.createsJobs ? ["POST"] : methods)
        fields.append((name: "Allow", value: (["OPTIONS"] + methods).joined(separator: ", ")))
        let started = ContinuousClock.now
        var clientID: String?
        var response: RawResponse
        do {
            response = try await respond(raw, route, methods) { clientID = $0 }
            response.headers = Self.merged(fields, response.headers)
        } catch {
            response = Self.response(to: error, fields)
        }
        log(raw, route, clientID, response.status, ContinuousClock.now - started)
        if raw.method == "HEAD" { response.body = .none }
        return response
    }

    private func respond(
        _ raw: RawRequest,
        _ route: RollerRoute,
        _ methods: [String],
        identified: (String) -> Void
    ) async throws -> RawResponse {
        try gate.checkHost(raw)
        guard raw.method != "OPTIONS" else { return Self.json(200, [:]) }
        try gate.checkAccept(raw, isText: route.answersText)
        guard let query = RollerRequest.query(raw.rawQuery) else {
            throw Refusal.detail(400, "The query holds a broken escape or a zero.")
        }
        let request = RollerRequest(raw: raw, query: query, sourceAddress: gate.sourceAddress(raw))
        let method = raw.method == "HEAD" ? "GET" : raw.method
        if route.isPublic || isAnonymous(request, route, method) {
            guard methods.contains(method) else { throw Self.notAllowed(raw.method) }
            return try await handle(request, route, method, nil)
        }
        let caller = try await gate.authenticate(request)
        identified(caller.clientID)
        guard methods.contains(method) else { throw Self.notAllowed(raw.method) }
        return try await handle(request, route, method, caller)
    }

    /// Whether somebody without credentials looks at the state of a job whose id they know.
    private func isAnonymous(_ request: RollerRequest, _ route: RollerRoute, _ method: String) -> Bool {
        guard case .job = route, settings.showsStateToAll, method == "GET" else { return false }
        return request.raw.header("Authorization") == nil && request.query["bewit"] == nil
    }

    private func handle(
        _ request: RollerRequest,
        _ route: RollerRoute,
        _ method: String,
        _ caller: Caller?
    ) async throws -> RawResponse {
        switch route {
        case .ping:
            let uptime = (ContinuousClock.now - started).components
            return Self.json(200, ["alive": true, "uptime": JSONValue(Int(uptime.seconds))])
        case .actions:
            return Self.json(200, actions())
        case .job(let id):
            return try await job(id, request, caller)
        case .jobCallback(let id):
            return try await callback(id, request)
        default:
            break
        }
        guard let caller else { throw Refusal.notFound }
        switch route {
        case .jobs, .workerJobs, .workerGroupJobs:
            return try await method == "POST" ? create(request, route, caller) : list(request, route, caller)
        case .jobCancel(let id):
            return try await cancel(id, request, caller)
        case .jobLog(let id):
            return try await log(id, request, caller)
        case .slave(let name):
            return try await slave(name, request, caller)
        case .slaveResults:
            return try await slaveResults(caller)
        case .slaveAction(let name, let action):
            return try await slaveAction(name, action, request, method, caller)
        case .caller:
            return Self.json(
                200,
                [
                    "client_id": .string(caller.clientID), "scopes": JSONValue(caller.scopes),
                    "prefix": .string(settings.scopePrefix),
                ]
            )
        case .ping, .actions, .job, .jobCallback:
            throw Refusal.notFound
        default:
            return try await handleInventory(request, route, method, caller)
        }
    }

    // MARK: - Answers

    static func json(
        _ status: Int,
        _ value: JSONValue,
        headers: [(name: String, value: String)] = []
    ) -> RawResponse {
        RawResponse(
            status: status,
            headers: [(name: "Content-Type", value: "application/json")] + headers,
            body: .bytes(value.bytes())
        )
    }

    private static func notAllowed(_ method: String) -> Refusal {
        .detail(405, "Method \"\(method)\" not allowed.")
    }

    /// Fields with others put over them; all values of `Vary` stay.
    private static func merged(
        _ base: [(name: String, value: String)],
        _ own: [(name: String, value: String)]
    ) -> [(name: String, value: String)] {
        let names = Set(own.map { $0.name.lowercased() })
        return base.filter { !names.contains($0.name.lowercased()) } + own
    }

    private static func response(to error: any Error, _ fields: [(name: String, value: String)]) -> RawResponse {
        switch error {
        case let refusal as Refusal:
            return json(refusal.status, refusal.body, headers: merged(fields, refusal.headers))
        case let error as PostgresError
        where error.isConnectionFailure || error.code == .poolExhausted || error.code == .poolClosed:
            Logger.current.error("the database does not answer", metadata: ["error": "\(error)"])
            return json(503, ["detail": "Job store unavailable."], headers: fields + [("Retry-After", "5")])
        case let error as PostgresError where error.isUniqueViolation:
            return json(409, ["detail": "Something else has one of these names."], headers: fields)
        case is CancellationError:
            return json(503, ["detail": "The server is going down."], headers: fields)
        default:
            let incident = JobID.make()
            Logger.current.error(
                "request failed",
                metadata: ["incidentId": "\(incident)", "error": "\(String(reflecting: error))"]
            )
            return json(500, ["detail": .string("Internal server error, incident \(incident).")], headers: fields)
        }
    }

    private func log(
        _ raw: RawRequest,
        _ route: RollerRoute,
        _ clientID: String?,
        _ status: Int,
        _ duration: Duration
    ) {
        var metadata: Logger.Metadata = [
            "method": "\(raw.method)", "resource": "\(raw.path)", "statusCode": "\(status)",
            "duration": "\(duration.milliseconds)",
        ]
        if let clientID { metadata["clientId"] = "\(clientID)" }
        if let address = gate.sourceAddress(raw) { metadata["sourceIp"] = "\(address)" }
        Logger.current.notice("monitor.apiMethod", metadata: metadata)
    }

    /// The actions as buttons need them.
    private func actions() -> JSONValue {
        [
            "actions": .array(
                catalogue.actions.map { action in
                    [
                        "name": .string(action.name), "title": .string(action.title),
                        "description": .string(action.summary),
                        "scope": .string(settings.scopePrefix + action.name),
                        "destructive": JSONValue(action.isDestructive), "readOnly": JSONValue(action.isReadOnly),
                        "controls": JSONValue(action.controls.map(\.rawValue)),
                        "confirm": JSONValue(action.needsConfirmation), "parameters": action.parameters,
                    ]
                }
            )
        ]
    }
}

extension Duration {
    var milliseconds: Int {
        Int(components.seconds) * 1000 + Int(components.attoseconds / 1_000_000_000_000_000)
    }
}
