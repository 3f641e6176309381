// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Logging
import Outbox
import Postgres
import Pulse
import Schedules
import StepKit
import StepTestSupport
import Synchronization
import Taskcluster
import TestSupport

@testable import PipelineKit

/// A database with the tables of pipelines, replicas of the service in front of it, and a lab for their steps.
struct PipelineWorld: Sendable {
    /// One process of the service.
    struct Replica: Sendable {
        let store: StepStore
        let service: PipelineService
        let runner: StepRunner
        let url: String
    }

    let pool: PostgresPool
    let lab: Lab
    let labURL: String
    let clock: TestClock?
    let curl: CurlTransport
    let replicas: [Replica]

    var service: PipelineService { replicas[0].service }

    /// Builds a world and takes everything down afterwards.
    ///
    /// With a clock, nothing is looked at unless the test says so; without, replicas look by themselves.
    static func with(
        replicas count: Int = 1,
        clock: TestClock? = nil,
        services: [String] = [],
        webhooks: [String] = [],
        lists: GroupLists = .none,
        exchange: String = "exchange/nowhere/v1/step-status",
        lease: Duration = .seconds(30),
        timeout: Duration = .seconds(20),
        bus: (pulse: PulseConnection, queue: String)? = nil,
        _ body: @Sendable @escaping (PipelineWorld) async throws -> Void
    ) async throws {
        let lab = Lab()
        try await lab.serve { labURL in
            try await OwnDatabase.with("pipeline") { url in
                let pool = PostgresPool(
                    PostgresConfiguration(url: url, applicationName: "pipeline-tests", poolSize: 8)
                )
                defer { pool.close() }
                try await PipelineMigrations.migrate(pool)
                let curl = CurlTransport()
                defer { curl.shutdown() }
                let setting = Setting(
                    pool: pool,
                    curl: curl,
                    labURL: labURL,
                    clock: clock,
                    services: services,
                    webhooks: webhooks,
                    lists: lists,
                    exchange: exchange,
                    lease: lease,
                    timeout: timeout
                )
                try await withThrowingTaskGroup(of: Void.self) { group in
                    var replicas: [Replica] = []
                    for number in 0..<count {
                        let earlier = replicas.map(\.url)
                        replicas.append(try await start(number, setting, earlier, bus, &group))
                    }
                    defer { group.cancelAll() }
                    let world = PipelineWorld(
                        pool: pool,
                        lab: lab,
                        labURL: labURL,
                        clock: clock,
                        curl: curl,
                        replicas: replicas
                    )
                    try await body(world)
                }
            }
        }
    }

    private struct Setting: Sendable {
        let pool: PostgresPool
        let curl: CurlTransport
        let labURL: String
        let clock: TestClock?
        let services: [String]
        let webhooks: [String]
        let lists: GroupLists
        let exchange: String
        let lease: Duration
        let timeout: Duration
    }

    private static func start(
        _ number: Int,
        _ setting: Setting,
        _ earlier: [String],
        _ bus: (pulse: PulseConnection, queue: String)?,
        _ group: inout ThrowingTaskGroup<Void, any Error>
    ) async throws -> Replica {
        let announcement = StepAnnouncement(
            exchange: setting.exchange,
            service: "pipeline",
            baseURL: "http://pipeline.example"
        )
        var now: @Sendable () -> Timestamp = { Timestamp.now() }
        if let clock = setting.clock { now = clock.now }
        let store = StepStore(
            schema: PipelineMigrations.schema,
            pool: setting.pool,
            announcement: announcement,
            now: now
        )
        let credentials = Hawk.Credentials(clientID: "p", accessToken: "secret")
        // Pipelines nest in replicas whose address is known already.
        let service = PipelineService(
            store: store,
            client: StepClient(transport: setting.curl, credentials: credentials, timeout: setting.timeout),
            services: [setting.labURL] + setting.services + earlier,
            webhooks: setting.webhooks,
            lists: setting.lists
        )
        let runner = StepRunner(
            store: store,
            owner: "replica-\(number)",
            interval: .milliseconds(200),
            lease: setting.lease,
            look: service.look
        )
        let api = PipelineAPI(service: service, runner: runner, tokens: nil, isPublic: false)
        let url = await StepServers.serve(
            api.api(schemas: try SchemaStore.locate(), adding: api.mock),
            authenticator: NamedCallers(believesSignatures: true),
            in: &group
        )
        group.addTask { try await store.changes.run() }
        if setting.clock == nil {
            group.addTask { try await withLogger(StepServers.quiet) { _ in try await runner.run() } }
        }
        if let (pulse, queue) = bus {
            group.addTask {
                do {
                    try await StepListener(service: service, pulse: pulse, queue: queue).run()
                } catch is CancellationError {}
            }
            let relay = OutboxRelay(outbox: store.outbox, pool: setting.pool, pulse: pulse)
            group.addTask { try await relay.run() }
        }
        return Replica(store: store, service: service, runner: runner, url: url)
    }

    // MARK: - Calls

    /// Calls the API; answers status, body and headers.
    @discardableResult
    func call(
        _ method: String,
        _ path: String,
        _ body: JSONValue? = nil,
        as authorization: String? = StepServers.client,
        headers: [String: String] = [:],
        replica: Int = 0
    ) async throws -> Answer {
        try await StepServers(curl: curl, urls: replicas.map(\.url))
            .call(method, path, body, as: authorization, headers: headers, server: replica)
    }

    /// A step in the lab.
    func step(_ uid: String, _ requires: [String] = [], _ members: JSONObject = [:]) -> JSONValue {
        var step: JSONObject = [
            "uid": .string(uid), "api_url": .string(labURL), "requires": JSONValue(requires), "parameters": [:],
        ]
        for (key, value) in members { step[key] = value }
        return .object(step)
    }

    func definition(_ steps: [JSONValue], _ members: JSONObject = [:]) -> JSONValue {
        var definition: JSONObject = ["parameters": ["steps": .array(steps)]]
        for (key, value) in members { definition[key] = value }
        return .object(definition)
    }

    struct Refused: Error, CustomStringConvertible {
        let description: String
    }

    /// Creates a pipeline.
    func create(_ uid: String, _ steps: [JSONValue], _ members: JSONObject = [:], replica: Int = 0) async throws {
        let answer = try await call("PUT", "/\(uid)", definition(steps, members), replica: replica)
        guard answer.status == 200 else { throw Refused(description: "\(uid): \(answer.status) \(answer.body)") }
    }

    func status(_ uid: String) async throws -> JSONValue {
        try await call("GET", "/\(uid)/status").body
    }

    func state(_ uid: String) async throws -> String {
        try await status(uid)["state"]?.string ?? ""
    }

    /// The states of the steps of a pipeline, in order.
    func states(_ uid: String) async throws -> [String] {
        try await status(uid)["info"]?["steps"]?.array?.compactMap { $0["state"]?.string } ?? []
    }

    /// Waits until a pipeline is in a state.
    func reach(_ uid: String, _ wanted: String) async throws {
        try await eventually(within: .seconds(240), "\(uid) is \(wanted)") { try await state(uid) == wanted }
    }

    /// Looks at everything that is due, again and again, moving the clock by small steps.
    func advance(_ seconds: Int, every step: Duration = .seconds(1)) async throws {
        let end = seconds * 1000
        let width = Int(step.components.seconds * 1000 + step.components.attoseconds / 1_000_000_000_000_000)
        for _ in stride(from: 0, to: end, by: width) {
            clock?.advance(by: step)
            _ = try await replicas[0].runner.runOnce()
        }
    }

    /// The events of a pipeline, oldest first.
    func events(_ uid: String) async throws -> [JSONValue] {
        try await call("GET", "/\(uid)/events?limit=500").body["events"]?.array ?? []
    }

    func kinds(_ uid: String) async throws -> [String] {
        try await events(uid).compactMap { $0["kind"]?.string }
    }

    /// The kinds of reasons for which a step waits.
    func reasons(_ uid: String, _ step: String) async throws -> [String] {
        let steps = try await call("GET", "/\(uid)/explain").body["steps"]?.array ?? []
        let found = steps.first { $0["uid"]?.string == step }
        return found?["reasons"]?.array?.compactMap { $0["kind"]?.string } ?? []
    }
}
