// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import HooksKit
import JSON
import Logging
import Outbox
import Postgres
import Schedules
import Synchronization
import Taskcluster
import TaskclusterClient
import TestSupport
import Testing

/// A queue and a notify service that remember what they were told and fail on demand.
final class StubServices: HTTPTransport {
    struct State {
        var tasks: [String: JSONValue] = [:]
        var calls: [(taskID: String, definition: JSONValue)] = []
        var mails: [JSONValue] = []
        /// Statuses to answer the next letters with.
        var mailRefusals: [(status: Int, code: String)] = []
        /// How often the queue was asked for the states of tasks.
        var statusCalls = 0
        /// Statuses to answer the next attempts to create a task with: 0 stands for no answer, 200 for one that is no JSON.
        var refusals: [(status: Int, code: String)] = []
        /// What the queue says when it refuses.
        var reason = "the queue's reason"
        /// The states of tasks that are not pending.
        var states: [String: String] = [:]
        /// The scopes that the creation of tasks was restricted to, call by call.
        var authorizedScopes: [[String]] = []
        /// Ends when the next attempt to create a task may go on.
        var hold: AsyncStream<Never>?
    }

    let state = Mutex(State())

    var tasks: [String: JSONValue] { state.withLock { $0.tasks } }
    var mails: Int { state.withLock { $0.mails.count } }

    func refuse(_ status: Int, _ code: String, times: Int = 1) {
        state.withLock { $0.refusals += Array(repeating: (status, code), count: times) }
    }

    /// Lets the next attempt to create a task wait, all others pass it; answers what ends the waiting.
    func holdFirstCall() -> AsyncStream<Never>.Continuation {
        let (stream, continuation) = AsyncStream<Never>.makeStream()
        state.withLock { $0.hold = stream }
        return continuation
    }

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        if request.method == "PUT" {
            let hold = state.withLock { state in
                defer { state.hold = nil }
                return state.hold
            }
            if let hold { for await _ in hold {} }
        }
        let body: JSONValue =
            if case .bytes(let bytes) = request.body { (try? JSONValue(parsing: bytes)) ?? .null } else { .null }
        let path = request.url.split(separator: "/").map(String.init)
        let answer = state.withLock { state -> HTTPResponse? in
            guard !request.url.contains("/notify/") else {
                if !state.mailRefusals.isEmpty {
                    let refusal = state.mailRefusals.removeFirst()
                    return Self.error(refusal.status, refusal.code, "the letter is refused")
                }
                state.mails.append(body)
                return HTTPResponse(status: 200, body: Array("{}".utf8))
            }
            guard request.method != "POST" else {
                state.statusCalls += 1
                return Self.statuses(of: body["taskIds"]?.array?.compactMap(\.string) ?? [], state)
            }
            guard request.method == "PUT", let taskID = path.last else {
                state.statusCalls += 1
                let id = path.dropLast().last ?? ""
                guard state.tasks[id] != nil else { return Self.error(404, "ResourceNotFound", state.reason) }
                let status: JSONValue = ["status": ["state": JSONValue(state.states[id] ?? "pending")]]
                return HTTPResponse(status: 200, body: status.bytes())
            }
            state.calls.append((taskID, body))
            state.authorizedScopes.append(Self.authorizedScopes(request))
            if !state.refusals.isEmpty {
                let refusal = state.refusals.removeFirst()
                if refusal.status == 0 { return nil }
                if refusal.status == 200 { return HTTPResponse(status: 200, body: Array("<html>".utf8)) }
                return Self.error(refusal.status, refusal.code, state.reason)
            }
            if let earlier = state.tasks[taskID], earlier != body {
                return Self.error(409, "RequestConflict", state.reason)
            }
            state.tasks[taskID] = body
            return HTTPResponse(status: 200, body: Array(#"{"status":{}}"#.utf8))
        }
        guard let answer else { throw HTTPClientError(.connect, "cannot connect: connection refused") }
        return answer
    }

    private static func statuses(of taskIDs: [String], _ state: State) -> HTTPResponse {
        let entries = taskIDs.filter { state.tasks[$0] != nil }.map { id -> JSONValue in
            ["taskId": JSONValue(id), "status": ["state": JSONValue(state.states[id] ?? "pending")]]
        }
        return HTTPResponse(status: 200, body: JSONValue.object(["statuses": .array(entries)]).bytes())
    }

    /// The restriction in the `ext` of a request's authorization.
    private static func authorizedScopes(_ request: HTTPRequest) -> [String] {
        let parts = request.headers["authorization"]?.split(separator: "ext=\"") ?? []
        guard parts.count == 2, let text = parts[1].split(separator: "\"").first,
            let ext = Base64.decoded(text).flatMap({ try? JSONValue(parsing: $0) })
        else { return [] }
        return ext["authorizedScopes"]?.array?.compactMap(\.string) ?? []
    }

    private static func error(_ status: Int, _ code: String, _ reason: String) -> HTTPResponse {
        let body: JSONValue = [
            "code": JSONValue(code), "message": JSONValue(reason), "requestInfo": ["method": "createTask"],
        ]
        return HTTPResponse(status: status, body: body.bytes())
    }
}

/// Everything of hooks in one process, on a database of its own.
struct HooksWorld {
    let pool: PostgresPool
    let queue: StubServices
    let clock: TestClock
    let box: SecretBox
    let hooks: HookStore
    let fires: FireStore
    let performer: FirePerformer
    let dispatcher: FireDispatcher
    let scheduler: Scheduler
    let schedules: ScheduleStore
    let programs: HookPrograms
    let mailer: FailureMailer
    let intake: DeliveryIntake
    let url: String
    private let curl: CurlTransport

    /// Says nothing, so that what fails can be found in the output of the tests.
    private static var silent: Logger {
        Logger(label: "hooks-tests") { _ in SwiftLogNoOpLogHandler() }
    }

    /// Builds a world, serves its API, and takes everything down afterwards.
    static func with<R: Sendable>(
        namespace: String = "taskcluster-hooks",
        logger: Logger? = nil,
        ignoresTokenQuery: Bool = false,
        _ body: @Sendable @escaping (HooksWorld) async throws -> R
    ) async throws -> R {
        try await withLogger(logger ?? silent) { _ in try await make(namespace, ignoresTokenQuery, body) }
    }

    private static func make<R: Sendable>(
        _ namespace: String,
        _ ignoresTokenQuery: Bool,
        _ body: @Sendable @escaping (HooksWorld) async throws -> R
    ) async throws -> R {
        try await OwnDatabase.with("hooks", poolSize: 4) { pool, _ in
            let curl = CurlTransport()
            defer { curl.shutdown() }
            try await HooksMigrations.migrate(pool)
            return try await serve(pool, curl, namespace, ignoresTokenQuery, body)
        }
    }

    private static func serve<R: Sendable>(
        _ pool: PostgresPool,
        _ curl: CurlTransport,
        _ namespace: String,
        _ ignoresTokenQuery: Bool,
        _ body: @Sendable @escaping (HooksWorld) async throws -> R
    ) async throws -> R {
        let queue = StubServices()
        let clock = TestClock(.now())
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
            namespace: namespace,
            client: client,
            longestPause: .milliseconds(50),
            interval: .milliseconds(20),
            now: clock.now
        )
        let (hooks, fires, schedules) = (firing.hooks, firing.fires, firing.schedules)
        let (programs, dispatcher) = (firing.programs, firing.dispatcher)
        let api = HooksAPI(
            store: hooks,
            fires: fires,
            history: HistoryStore(pool: pool),
            programs: programs,
            schedules: schedules,
            dispatcher: dispatcher,
            rules: try HookRules(),
            client: client,
            ignoresTokenQuery: ignoresTokenQuery,
            now: clock.now
        )
        let server = HTTPServer(
            configuration: HTTPServerConfiguration(),
            name: "hooks-service",
            rootURL: "http://queue.example",
            apis: [try api.api(schemas: try SchemaStore.locate())],
            authenticator: TrustingAuthenticator(),
            health: HealthRegistry()
        )
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            group.addTask { try await dispatcher.run() }
            let port = await server.waitUntilListening()
            let world = HooksWorld(
                pool: pool,
                queue: queue,
                clock: clock,
                box: box,
                hooks: hooks,
                fires: fires,
                performer: firing.performer,
                dispatcher: dispatcher,
                scheduler: Scheduler(
                    schedules: schedules,
                    fires: fires,
                    programs: programs,
                    dispatcher: dispatcher,
                    interval: .seconds(60),
                    now: clock.now
                ),
                schedules: schedules,
                programs: programs,
                mailer: FailureMailer(
                    store: FailureMailStore(pool: pool),
                    sender: NotifySender(client: client),
                    now: clock.now
                ),
                intake: DeliveryIntake(
                    store: ListenerStore(pool: pool),
                    fires: fires,
                    programs: programs,
                    dispatcher: dispatcher
                ),
                url: "http://127.0.0.1:\(port)/api/hooks/v1",
                curl: curl
            )
            defer { group.cancelAll() }
            return try await body(world)
        }
    }

    // MARK: - Calls

    /// Sends a request with all scopes, or with given ones; nil stands for no credentials.
    func call(
        _ method: String,
        _ path: String,
        _ body: JSONValue? = nil,
        scopes: String? = "*"
    ) async throws -> (status: Int, body: JSONValue) {
        try await send(method, path, body?.bytes(), type: body == nil ? nil : "application/json", scopes: scopes)
    }

    /// Sends a request with a body as it is.
    func send(
        _ method: String,
        _ path: String,
        _ body: [UInt8]?,
        type: String?,
        scopes: String? = "*"
    ) async throws -> (status: Int, body: JSONValue) {
        var request = HTTPRequest(method: method, url: url + path)
        if let scopes { request.headers["authorization"] = scopes }
        if let type { request.headers["content-type"] = type }
        if let body { request.body = .bytes(body) }
        let response = try await curl.send(request)
        return (response.status, (try? response.json()) ?? .null)
    }

    /// Creates the hook `g/h` with a template and further members.
    @discardableResult
    func create(_ task: JSONValue = ["payload": [:]], _ more: JSONObject = [:]) async throws -> (
        status: Int, body: JSONValue
    ) {
        try await call("PUT", "/hooks/g/h", Self.request(task, more))
    }

    static func request(_ task: JSONValue = ["payload": [:]], _ more: JSONObject = [:]) -> JSONValue {
        var request: JSONObject = [
            "metadata": ["name": "n", "description": "d", "owner": "owner@example.com"], "task": task,
        ]
        for (key, value) in more { request[key] = value }
        return .object(request)
    }

    /// The history of `g/h`, newest first.
    func history() async throws -> [JSONValue] {
        try await call("GET", "/hooks/g/h/last-fires").body["lastFires"]?.array ?? []
    }

    /// How many fires are still to be performed.
    func openFires() async throws -> Int {
        try await pool.query("select count(*) as n from hooks.fires where state <> 'done'").first?.int("n") ?? 0
    }

    /// Waits until the ends of all fires are written, which may be a moment after their callers were answered.
    func allEnded() async throws {
        try await eventually(within: .seconds(120), "all fires ended") { try await openFires() == 0 }
    }

    // MARK: - Schedules

    /// Moves the clock just past the instant that the hooks wait for, whatever second of the minute it is.
    func passNextInstant() async throws {
        let rows = try await pool.query(
            "select max(next_scheduled_date) as next from hooks.hooks where next_scheduled_date < '3999-01-01Z'"
        )
        let next = try #require(try rows.first?.optionalTimestamp("next"))
        clock.advance(by: max(.zero, next - clock.now()) + .milliseconds(500))
    }

    /// Copies the hook `g/h` under many names, with a template that makes a task.
    func multiply(_ count: Int) async throws {
        let names = (0..<count).map { HookName(group: "g", hook: "many\($0)") }
        let seeds = try names.map { try box.seal($0.hook, for: $0) }
        _ = try await pool.execute(
            """
            insert into hooks.hooks (hook_group_id, hook_id, metadata, task, bindings, schedule, trigger_schema,
                encrypted_trigger_token, encrypted_next_task_id, next_scheduled_date, next_due)
            select 'g', copy.hook_id, metadata, '{"payload":{}}', bindings, schedule, trigger_schema, copy.seed, copy.seed,
                next_scheduled_date, next_due
            from hooks.hooks h,
                unnest(\(names.map(\.hook))::text[], \(seeds)::text[]) as copy (hook_id, seed)
            where h.hook_group_id = 'g' and h.hook_id = 'h'
            """
        )
    }

    /// A scheduler whose fires nobody performs until their leases end.
    func abandonedScheduler(lease: Duration) -> Scheduler {
        let store = FireStore(pool: pool, lease: lease)
        let dispatcher = FireDispatcher(fires: store, performer: performer)
        return Scheduler(
            schedules: schedules,
            fires: store,
            programs: programs,
            dispatcher: dispatcher,
            interval: .seconds(60),
            now: clock.now
        )
    }

    /// A scheduler by the clock on the wall, which looks by itself once an hour.
    func liveScheduler() -> Scheduler {
        Scheduler(
            schedules: schedules,
            fires: fires,
            programs: programs,
            dispatcher: dispatcher,
            interval: .seconds(3600)
        )
    }
}
