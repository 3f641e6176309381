// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Logging
import PipelineKit
import Postgres
import Schedules
import SignoffKit
import StepKit
import Synchronization
import Taskcluster
import TaskclusterClient
import TestSupport

@testable import ReleasesKit

/// What the services around releases are told and answer: the index, the queue's artifacts, and the steps of tasks.
final class Surroundings: Sendable {
    struct State: Sendable {
        /// Whether the step service answers.
        var isUp = true
        /// Whether tasks are made of what it is told.
        var makesTasks = true
        var bodies: [String: JSONValue] = [:]
        var puts: [String: Int] = [:]
        var cancelled: [String] = []
        var completed: Set<String> = []
        /// How often somebody has asked for the tasks of a group.
        var listings = 0
        var hooks: [(body: [UInt8], signature: String?, delivery: String?)] = []
        var hookRefusals = 0
        var mails: [JSONValue] = []
        /// The tasks that were made, and how often each was asked for.
        var tasks: [String: JSONValue] = [:]
        var taskPuts: [String: Int] = [:]
        /// How often the digests of a released version were asked for.
        var sums: [String: Int] = [:]
        /// Revisions besides the usual ones that have a decision task.
        var planned: Set<String> = []
        /// Whether the queue makes tasks and never says so.
        var isMute = false
        /// Whether the queue refuses every task, also those that it has.
        var refusesTasks = false
    }

    static let decision = "DecisionDecisionDecisi"
    static let flavors = ["promote_firefox", "push_firefox", "ship_firefox"]
    let state = Mutex(State())
    private let offered: [String]

    /// Makes surroundings whose sources can carry out some phases.
    init(offering flavors: [String]) {
        offered = flavors
    }

    func puts(_ uid: String) -> Int { state.withLock { $0.puts[uid] ?? 0 } }
    func body(_ uid: String) -> JSONValue? { state.withLock { $0.bodies[uid] } }

    private func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        _ handler: @escaping Endpoint.Handler
    ) -> Endpoint {
        let name = "\(method.rawValue)\(route)"
        return Endpoint(method, route, name: name, category: "Test", title: "Test", description: "", handler: handler)
    }

    private func api(_ service: String, _ mount: API.Mount, _ endpoints: [Endpoint]) -> API {
        API(
            service: service,
            title: "Surroundings",
            description: "What is around releases.",
            schemas: SchemaStore(directory: "/nowhere"),
            endpoints: endpoints,
            mount: mount,
            errors: mount == .root ? .problem : .taskcluster
        )
    }

    var apis: [API] {
        let index = endpoint(.get, "/task/<route>") { [self] request in
            let planned = state.withLock { $0.planned.map { "gecko.v2.mozilla-beta.revision.\($0)" } }
            let known = ["gecko.v2.mozilla-beta.revision.abc", "xpi.v2.xpi-manifest.revision.abc"] + planned
            let isKnown = known.contains { "\($0).taskgraph.decision" == request.parameter("route") }
            guard isKnown else { return .json(["code": "ResourceNotFound", "message": ""], status: 404) }
            return .json(["taskId": .string(Self.decision)])
        }
        let queue = endpoint(.get, "/task/<task>/artifacts/<name*>") { [self] request in
            guard request.parameter("name") == "public/actions.json" else { return .json([:], status: 404) }
            let flavors: JSONValue = ["enum": JSONValue(offered + ["something_else"])]
            let schema: JSONValue = ["properties": ["release_promotion_flavor": flavors]]
            return .json(["actions": [["name": "release-promotion", "kind": "hook", "schema": schema]]])
        }
        let create = endpoint(.put, "/task/<task>") { [self] request in
            let (id, body) = (request.parameter("task"), try JSONValue(parsing: request.rawBody))
            let answer = state.withLock { state -> Int? in
                state.taskPuts[id, default: 0] += 1
                if state.refusesTasks { return 400 }
                if let known = state.tasks[id], known != body { return 409 }
                state.tasks[id] = body
                return state.isMute ? nil : 200
            }
            guard let answer else {
                try await Task.sleep(for: .seconds(3600))
                return .json([:], status: 500)
            }
            return .json(["status": ["taskId": .string(id)]], status: answer)
        }
        let status = endpoint(.get, "/task/<task>/status") { [self] request in
            let id = request.parameter("task")
            let isKnown = state.withLock { $0.tasks[id] != nil }
            return .json(["status": ["taskId": .string(id)]], status: isKnown ? 200 : 404)
        }
        let group = endpoint(.get, "/task-group/<group>/list") { [self] request in
            state.withLock { $0.listings += 1 }
            func member(_ task: String, _ state: JSONValue, _ kind: JSONValue) -> JSONValue {
                ["status": ["taskId": .string(task), "state": state], "task": ["tags": ["kind": kind]]]
            }
            return .json([
                "tasks": [
                    member("building", "completed", "build"), member("failing", "failed", "release-signing"),
                    member("signing", "completed", "release-signing"),
                ]
            ])
        }
        let artifacts = endpoint(.get, "/task/<task>/artifacts") { request in
            let folder = request.parameter("task")
            return .json(["artifacts": [["name": "public/logs/live.log"], ["name": .string("\(folder)/helper.xpi")]]])
        }
        return [
            api("index", .versioned, [index]),
            api("queue", .versioned, [queue, create, status, group, artifacts]),
            api("steps", .root, steps),
        ]
    }

    private var steps: [Endpoint] {
        [
            endpoint(.get, "/releases/mozilla-beta/raw-file/abc/browser/config/version_display.txt") { _ in
                .text("60.0b9\n", contentType: "text/plain")
            },
            endpoint(.get, "/pub/firefox/<kind>/<version>/SHA512SUMS") { [self] request in
                let version = request.parameter("version")
                state.withLock { $0.sums[version, default: 0] += 1 }
                guard version != "60.0b2" else { return .json([:], status: 404) }
                return .text("0123  \(version)/firefox.tar.bz2\n", contentType: "text/plain")
            },
            endpoint(.get, "/pub/firefox/candidates/<folder>/<build>/SHA512SUMS") { request in
                // The second build of each version was released; nothing is known of a third.
                guard request.parameter("build") != "build3" else { return .json([:], status: 404) }
                let version = request.parameter("folder").split(separator: "-").first ?? ""
                let digest = request.parameter("build") == "build2" ? "0123" : "4567"
                return .text("\(digest)  \(version)/firefox.tar.bz2\n", contentType: "text/plain")
            },
            endpoint(.get, "/manifests/<revision>/manifests/<file>") { request in
                let manifests = [
                    "helper.yml": "active: true\naddon-type: privileged\n",
                    "newtab.yml": "active: true\naddon-type: system\n",
                    "old.yml": "active: false\naddon-type: privileged\n",
                ]
                guard request.parameter("revision") == "abc", let text = manifests[request.parameter("file")] else {
                    return .json([:], status: 404)
                }
                return .text(text, contentType: "text/plain")
            },
            endpoint(.put, "/steps/<uid>") { [self] request in
                let (uid, body) = (request.parameter("uid"), try JSONValue(parsing: request.rawBody))
                return state.withLock { state in
                    guard state.isUp else { return .json([:], status: 503) }
                    state.puts[uid, default: 0] += 1
                    if let known = state.bodies[uid], known != body { return .json([:], status: 409) }
                    state.bodies[uid] = body
                    return .json([:])
                }
            },
            endpoint(.get, "/steps/<uid>/status") { [self] request in
                let uid = request.parameter("uid")
                return state.withLock { state in
                    guard state.isUp else { return .json([:], status: 503) }
                    guard state.bodies[uid] != nil else { return .json([:], status: 404) }
                    let isCancelled = state.cancelled.contains(uid)
                    let isCompleted = state.completed.contains(uid)
                    return .json([
                        "uid": .string(uid),
                        "state": isCancelled ? "cancelled" : isCompleted ? "completed" : "running",
                        "info": ["task_id": state.makesTasks ? .string("task-of-\(uid)") : .null],
                    ])
                }
            },
            endpoint(.post, "/steps/<uid>/cancel") { [self] request in
                let uid = request.parameter("uid")
                state.withLock { $0.cancelled.append(uid) }
                return .json(["uid": .string(uid), "state": "cancelled"])
            },
        ]
    }
}

/// Believes callers whose authorization is a name and a list of scopes, and signatures of one client with all scopes.
struct TrustingAuthenticator: RequestAuthenticator {
    func authenticate(_ request: AuthenticationRequest) async throws -> AuthenticationResult {
        let expires = Timestamp.now() + .seconds(900)
        guard let text = request.authorization else { return .none(scopes: [], expires: expires) }
        if text.hasPrefix("Hawk ") {
            let isKnown = text.contains("id=\"release-runner\"")
            guard isKnown else { return .failed(message: "nobody") }
            return .success(clientID: "release-runner", expires: expires, scopes: ["*"], hash: nil)
        }
        let words = text.split(separator: " ").map(String.init)
        return .success(clientID: words[0], expires: expires, scopes: Array(words.dropFirst()), hash: nil)
    }
}

/// A database with the tables of pipelines and releases, the service in front of it, and what is around it.
struct ReleaseWorld: Sendable {
    static let script = "shipit-script *"
    static let audience = "releases-tests"

    static let catalogue: JSONValue = [
        "products": [
            "firefox": [
                "phases": ["promote_firefox", "push_firefox", "ship_firefox", "unknown_firefox"],
                "authorized-ldap-groups": ["shipit_firefox"], "can-be-disabled": true,
                "merge-behaviors": [
                    "beta-to-release": ["repo": "https://example.com/beta", "project": "mozilla-beta"]
                ],
                "signoffs": [
                    "ship_firefox": [
                        ["name": "RelEng", "description": "for release engineering", "permissions": "releng"],
                        ["name": "RelMan", "description": "for release management", "permissions": "relman"],
                    ]
                ],
            ],
            "devedition": ["phases": ["promote_firefox"], "allow-phase-skipping": true],
            "other": ["phases": ["promote_firefox"], "authorized-ldap-groups": ["shipit_other"]],
            "fennec": ["legacy": true],
        ],
        "groups": ["releng": ["shipit_releng"], "relman": ["shipit_relman"]],
        "xpi": [
            "types": [
                "privileged": [
                    "authorized-ldap-groups": ["shipit_xpi"],
                    "signoffs": ["push_firefox": [["name": "Review", "permissions": "relman"]]],
                ]
            ]
        ],
    ]

    let pool: PostgresPool
    let curl: CurlTransport
    let url: String
    let around: Surroundings
    let aroundURL: String
    let issuer: TestIssuer
    let issuerURL: String
    let service: ReleaseService
    let pipelines: PipelineService
    let runner: StepRunner

    private static var quiet: Logger {
        var logger = Logger(label: "releases-tests")
        logger.logLevel = .error
        return logger
    }

    private static func server(_ apis: [API]) -> HTTPServer {
        HTTPServer(
            configuration: HTTPServerConfiguration(),
            name: "releases-tests",
            rootURL: nil,
            apis: apis,
            authenticator: TrustingAuthenticator(),
            health: HealthRegistry()
        )
    }

    static func with(
        catalogue: JSONValue = ReleaseWorld.catalogue,
        flavors: [String] = Surroundings.flavors,
        _ body: @Sendable @escaping (ReleaseWorld) async throws -> Void
    ) async throws {
        try await OwnDatabase.with("releases") { database in
            let pool = PostgresPool(
                PostgresConfiguration(url: database, applicationName: "releases-tests", poolSize: 8)
            )
            defer { pool.close() }
            try await PipelineMigrations.migrate(pool)
            try await ReleasesMigrations.migrate(pool)
            let curl = CurlTransport()
            defer { curl.shutdown() }
            try await withThrowingTaskGroup(of: Void.self) { group in
                defer { group.cancelAll() }
                let around = Surroundings(offering: flavors)
                let aroundServer = server(around.apis)
                let issuer = try TestIssuer()
                let keys = try issuer.keySet()
                let issuerServer = server([issuerAPI(keys)])
                group.addTask { try await withLogger(quiet) { _ in try await aroundServer.run() } }
                group.addTask { try await withLogger(quiet) { _ in try await issuerServer.run() } }
                let aroundURL = "http://127.0.0.1:\(await aroundServer.waitUntilListening())"
                let issuerURL = "http://127.0.0.1:\(await issuerServer.waitUntilListening())/"
                let store = StepStore(
                    schema: PipelineMigrations.schema,
                    pool: pool,
                    announcement: StepAnnouncement(
                        exchange: "exchange/nowhere/v1/step-status",
                        service: "pipeline",
                        baseURL: "http://pipeline.example"
                    )
                )
                let pipelines = PipelineService(
                    store: store,
                    client: StepClient(transport: curl, credentials: nil),
                    services: ["\(aroundURL)/steps"]
                )
                let runner = StepRunner(
                    store: store,
                    owner: "tests",
                    interval: .milliseconds(100),
                    look: pipelines.look
                )
                let service = ReleaseService(
                    pipelines: pipelines,
                    catalogue: try ProductCatalogue(catalogue, allowsLax: true),
                    place: ReleaseService.Place(
                        taskclusterSteps: "\(aroundURL)/steps",
                        repositories: aroundURL,
                        detailsExchange: "exchange/nowhere/shipit/api",
                        archive: "\(aroundURL)/pub"
                    ),
                    login: LoginRules(requiresSecondFactor: true, longestLogin: 43_200),
                    client: TaskclusterClient(rootURL: aroundURL, credentials: { nil }, transport: curl),
                    transport: curl,
                    manifests: RemoteManifests(url: "\(aroundURL)/manifests", transport: curl)
                )
                var rules = TokenRules(issuer: issuerURL, audience: audience)
                rules.refusesTestIssuers = false
                let tokens = TokenVerifier(rules: rules, keysURL: "\(issuerURL)keys", transport: curl)
                let releases = ReleasesAPI(service: service, tokens: tokens, authenticator: TrustingAuthenticator())
                let api = PipelineAPI(
                    service: pipelines,
                    runner: runner,
                    tokens: tokens,
                    isPublic: false,
                    guardian: service
                )
                let front = server([api.api(schemas: try SchemaStore.locate(), adding: releases.endpoints)])
                group.addTask { try await withLogger(quiet) { _ in try await front.run() } }
                group.addTask { try await withLogger(quiet) { _ in try await runner.run() } }
                try await body(
                    ReleaseWorld(
                        pool: pool,
                        curl: curl,
                        url: "http://127.0.0.1:\(await front.waitUntilListening())",
                        around: around,
                        aroundURL: aroundURL,
                        issuer: issuer,
                        issuerURL: issuerURL,
                        service: service,
                        pipelines: pipelines,
                        runner: runner
                    )
                )
            }
        }
    }

    private static func issuerAPI(_ keys: JSONValue) -> API {
        API(
            service: "issuer",
            title: "Issuer",
            description: "Keys.",
            schemas: SchemaStore(directory: "/nowhere"),
            endpoints: [
                Endpoint(.get, "/keys", name: "keys", category: "Test", title: "Keys", description: "") { _ in
                    .json(keys)
                }
            ],
            mount: .root,
            errors: .problem
        )
    }

    // MARK: - Calls

    func person(
        _ name: String,
        _ groups: [String],
        methods: [String] = ["pwd", "mfa"],
        at moment: Timestamp = .now()
    ) throws -> String {
        try token(name, ["groups": JSONValue(groups), "amr": JSONValue(methods)], at: moment)
    }

    /// An `Authorization` field of somebody as the issuer's list describes them.
    func token(_ name: String, _ entry: JSONObject, at moment: Timestamp = .now()) throws -> String {
        let claims = TestUser(name, entry).claims(issuer: issuerURL, audience: Self.audience, now: moment)
        return "Bearer \(try issuer.token(claims))"
    }

    @discardableResult
    func call(
        _ method: String,
        _ path: String,
        _ body: JSONValue? = nil,
        as authorization: String? = nil,
        headers: HTTPHeaders = [:],
        bytes: [UInt8]? = nil
    ) async throws -> (status: Int, body: JSONValue, headers: HTTPHeaders) {
        var fields = headers
        if let authorization { fields["Authorization"] = authorization }
        // The script names the type of bodies that are empty, too.
        if fields["Content-Type"] == nil { fields["Content-Type"] = "application/json" }
        let content = bytes ?? body?.bytes()
        let request = HTTPRequest(
            method: method,
            url: url + path,
            headers: fields,
            body: content.map { .bytes($0) } ?? .none,
            timeout: .seconds(60)
        )
        let response = try await curl.send(request)
        return (response.status, (try? response.json()) ?? .null, response.headers)
    }

    func release(
        _ version: String = "60.0b9",
        product: String = "firefox",
        build: Int = 1,
        as caller: String = ReleaseWorld.script
    ) async throws -> (status: Int, body: JSONValue) {
        let body: JSONValue = [
            "product": .string(product), "branch": "releases/mozilla-beta", "version": .string(version),
            "build_number": JSONValue(build), "revision": "abc", "partial_updates": "auto",
        ]
        let answer = try await call("POST", "/releases", body, as: caller)
        return (answer.status, answer.body)
    }

    func phase(_ release: String, _ phase: String) async throws -> JSONValue {
        try await call("GET", "/releases/\(release)/\(phase)").body
    }
}
