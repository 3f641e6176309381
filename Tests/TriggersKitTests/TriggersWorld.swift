// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Notices
import Postgres
import Pulse
import Synchronization
import Taskcluster
import TaskclusterClient
import TestSupport

@testable import BridgesKit
@testable import HooksKit
@testable import TriggersKit

/// A queue that remembers tasks, has groups and fails on demand.
final class StubQueue: HTTPTransport {
    struct State {
        var tasks: [String: JSONValue] = [:]
        var states: [String: String] = [:]
        /// The pages of each group.
        var groups: [String: [[JSONValue]]] = [:]
        var pagesRead = 0
        /// Statuses to answer the next calls with.
        var refusals: [Int] = []
    }

    let state = Mutex(State())

    var tasks: [String: JSONValue] { state.withLock { $0.tasks } }

    /// The payloads that hooks were triggered with, in no order.
    var payloads: [JSONValue] { tasks.values.compactMap { $0["extra"]?["payload"] } }

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let body: JSONValue =
            if case .bytes(let bytes) = request.body { (try? JSONValue(parsing: bytes)) ?? .null } else { .null }
        let parts = request.url.split(separator: "?", maxSplits: 1)
        let path = parts[0].split(separator: "/").map(String.init)
        return state.withLock { state in
            if !state.refusals.isEmpty {
                return Self.error(state.refusals.removeFirst(), "InternalServerError")
            }
            if request.method == "PUT", let taskID = path.last {
                if let earlier = state.tasks[taskID], earlier != body { return Self.error(409, "RequestConflict") }
                state.tasks[taskID] = body
                return HTTPResponse(status: 200, body: Array(#"{"status":{}}"#.utf8))
            }
            if path.last == "list", let pages = state.groups[path[path.count - 2]] {
                state.pagesRead += 1
                let page = parts.count > 1 ? parts[1].split(separator: "=").last.flatMap { Int($0) } ?? 0 : 0
                var answer: JSONValue = ["tasks": .array(pages[page])]
                if page + 1 < pages.count { answer["continuationToken"] = .string(String(page + 1)) }
                return HTTPResponse(status: 200, body: answer.bytes())
            }
            if request.method == "POST" {
                let entries = (body["taskIds"]?.array?.compactMap(\.string) ?? []).compactMap { id -> JSONValue? in
                    guard state.tasks[id] != nil else { return nil }
                    return ["taskId": .string(id), "status": ["state": .string(state.states[id] ?? "pending")]]
                }
                return HTTPResponse(status: 200, body: JSONValue.object(["statuses": .array(entries)]).bytes())
            }
            return Self.error(404, "ResourceNotFound")
        }
    }

    private static func error(_ status: Int, _ code: String) -> HTTPResponse {
        HTTPResponse(status: status, body: JSONValue.object(["code": .string(code), "message": "refused"]).bytes())
    }
}

/// Triggers and hooks in one process, on a database of its own, with a queue and a Phabricator.
struct TriggersWorld: Sendable {
    let pool: PostgresPool
    let queue: StubQueue
    let conduit: ConduitServer
    let url: String
    let curl: CurlTransport
    let client: TaskclusterClient
    let door: HookDoor

    var runs: RunStore { RunStore(pool: pool) }
    var places: PlaceStore { PlaceStore(pool: pool) }
    var letters: LetterStore { LetterStore(pool: pool) }
    var taskStore: TaskStore { TaskStore(pool: pool) }
    var uses: UseStore { UseStore(pool: pool) }
    var phabricator: Phabricator { phabricator(token: ConduitServer.token) }

    func phabricator(token: String) -> Phabricator {
        Phabricator(conduit: Conduit(url: url, token: Secret(token), transport: curl))
    }

    static func with<R: Sendable>(_ body: @Sendable @escaping (TriggersWorld) async throws -> R) async throws -> R {
        try await OwnDatabase.with("triggers", poolSize: 6) { pool, _ in
            let curl = CurlTransport()
            defer { curl.shutdown() }
            try await HooksMigrations.migrate(pool)
            try await TriggersMigrations.migrate(pool)
            let conduit = ConduitServer()
            return try await conduit.serve { url in try await make(pool, curl, conduit, url, body) }
        }
    }

    private static func make<R: Sendable>(
        _ pool: PostgresPool,
        _ curl: CurlTransport,
        _ conduit: ConduitServer,
        _ url: String,
        _ body: @Sendable @escaping (TriggersWorld) async throws -> R
    ) async throws -> R {
        let queue = StubQueue()
        let credentials = Hawk.Credentials(clientID: "hooks", accessToken: "none-of-your-business-000")
        let client = TaskclusterClient(
            rootURL: "http://queue.example",
            credentials: { credentials },
            transport: queue,
            retry: RetryPolicy(attempts: 1, base: .zero, maximum: .zero)
        )
        let box = try SecretBox(
            configuration: #"[{"id":"k","algo":"aes-256","key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}]"#
        )
        let firing = FiringParts(
            pool: pool,
            box: box,
            namespace: "taskcluster-hooks",
            client: client,
            longestPause: .milliseconds(50),
            interval: .milliseconds(20)
        )
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await firing.dispatcher.run() }
            defer { group.cancelAll() }
            return try await body(
                TriggersWorld(
                    pool: pool,
                    queue: queue,
                    conduit: conduit,
                    url: url,
                    curl: curl,
                    client: client,
                    door: firing.door
                )
            )
        }
    }

    // MARK: - Parts

    static let hook = HookName(group: "project", hook: "hook")

    static func trigger(_ source: Trigger.Source, _ type: TriggerType, hook: HookName = hook) -> Trigger {
        Trigger(name: type.rawValue, type: type, hook: hook, source: source)
    }

    static let diffs = trigger(.phabricator, .phabricator)
    static let coverage = trigger(.coverage(CoverageRule()), .coverage)
    static let commits = trigger(.mozReview(repositoryURL: "https://review.example/gecko"), .mozReview)

    /// Makes a hook whose tasks show what they were triggered with.
    func makeHook(_ name: HookName = hook, schema: JSONValue = [:], task: JSONValue? = nil) async throws {
        let template: JSONValue = task ?? ["extra": ["payload": ["$eval": "payload"], "by": ["$eval": "firedBy"]]]
        try await pool.execute(
            """
            insert into hooks.hooks (hook_group_id, hook_id, metadata, task, bindings, schedule, trigger_schema, options,
                encrypted_trigger_token, encrypted_next_task_id, next_scheduled_date, next_due)
            values (\(name.group), \(name.hook), '{}', \(template), '[]', '[]', \(schema), '{}', '{}', '{}', '4000-02-01',
                '4000-02-01')
            """
        )
    }

    func poller(_ triggers: [Trigger] = [diffs]) -> DiffPoller {
        DiffPoller(
            triggers: triggers,
            phabricator: phabricator,
            places: places,
            runs: runs,
            interval: .milliseconds(100),
            wake: Signal()
        )
    }

    func worker(
        _ triggers: [Trigger] = [diffs],
        visibility: RunWorker.Visibility = .init(tries: 5, pause: .milliseconds(10))
    ) -> RunWorker {
        RunWorker(
            triggers: triggers,
            runs: runs,
            resolver: Resolver(client: client, phabricator: phabricator),
            door: door,
            clientID: "static/slipway/hooks",
            visibility: visibility,
            longestPause: .milliseconds(20),
            wake: Signal()
        )
    }

    /// A connection that nobody makes.
    static var noPulse: PulseConnection {
        PulseConnection(PulseConfiguration(host: "127.0.0.1", user: "u", password: "p"), name: "unused")
    }

    func intake(
        _ trigger: Trigger,
        _ subscription: PulseSubscription = PulseSubscription(queue: PulseQueue("unused"), bindings: []),
        pulse: PulseConnection = noPulse,
        consumption: Consumption = Consumption([])
    ) -> MessageIntake {
        MessageIntake(
            trigger: trigger,
            subscription: subscription,
            pulse: pulse,
            runs: runs,
            letters: letters,
            wake: Signal(),
            uses: uses,
            consumption: consumption
        )
    }

    /// Serves the interface and the receiver of announcements.
    func serve(
        _ triggers: [Trigger] = [diffs, commits],
        secrets: [Secret] = [],
        pulse: PulseConnection = noPulse,
        _ body: @Sendable @escaping (String) async throws -> Void
    ) async throws {
        let receiver = CodeReviewReceiver(triggers: [Self.diffs], secrets: secrets, runs: runs, wake: Signal())
        let api = TriggersAPI(
            triggers: triggers,
            runs: runs,
            letters: letters,
            removal: TriggerRemoval(uses: uses, runs: runs, pulse: pulse),
            wake: Signal()
        )
        let server = HTTPServer(
            configuration: HTTPServerConfiguration(),
            name: "triggers-tests",
            rootURL: "http://triggers.example",
            apis: [try api.api(schemas: SchemaStore.locate())],
            authenticator: TrustingAuthenticator(),
            health: HealthRegistry(),
            raw: [receiver.route]
        )
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            defer { group.cancelAll() }
            try await body("http://127.0.0.1:\(await server.waitUntilListening())")
        }
    }

    /// Calls the interface that is served at an address.
    func call(
        _ url: String,
        _ method: String,
        _ path: String,
        scopes: String = "*"
    ) async throws -> (status: Int, body: JSONValue) {
        let request = HTTPRequest(
            method: method,
            url: "\(url)/api/triggers/v1\(path)",
            headers: ["Authorization": scopes]
        )
        let response = try await curl.send(request)
        return (response.status, (try? response.json()) ?? .null)
    }

    // MARK: - Doing and looking

    /// Looks for diffs, whether or not the time has come.
    @discardableResult
    func look(_ poller: DiffPoller) async throws -> Int? {
        try await pool.execute("update triggers.places set next_look = now()")
        return try await poller.look()
    }

    /// Works until everything is settled.
    func settle(_ worker: RunWorker) async throws {
        try await eventually("everything is settled") {
            try await worker.work()
            return try await open() == 0
        }
    }

    func open() async throws -> Int {
        try await pool.query("select count(*) as n from triggers.runs where settled is null").first?.int("n") ?? -1
    }

    func states() async throws -> [String: String] {
        let rows = try await pool.query("select subject, state from triggers.runs")
        var states: [String: String] = [:]
        for row in rows { states[try row.string("subject")] = try row.string("state") }
        return states
    }

    func reasons() async throws -> [String] {
        let rows = try await pool.query("select reason from triggers.runs where reason is not null order by id")
        return try rows.map { try $0.string("reason") }
    }
}
