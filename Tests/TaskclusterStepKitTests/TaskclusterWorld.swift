// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Logging
import Postgres
import Schedules
import StepKit
import StepTestSupport
import Taskcluster
import TaskclusterClient
import TestSupport

@testable import TaskclusterStepKit

/// A database with the tables of Taskcluster steps, replicas of the service in front of it, and a queue that obeys tests.
struct TaskclusterWorld: Sendable {
    let pool: PostgresPool
    let queue: QueueDouble
    let clock: TestClock
    let servers: StepServers
    let replicas: [(service: TaskclusterService, runner: StepRunner)]

    /// Builds a world and takes everything down afterwards; nothing is looked at unless a test says so.
    static func with(
        replicas count: Int = 1,
        hooksNameTasks: Bool = true,
        lease: Duration = .seconds(30),
        _ body: @Sendable @escaping (TaskclusterWorld) async throws -> Void
    ) async throws {
        try await OwnDatabase.with("taskcluster", poolSize: 6) { pool, _ in
            try await TaskclusterMigrations.migrate(pool)
            let clock = TestClock(.now())
            let queue = QueueDouble(clock: clock.now)
            let curl = CurlTransport()
            defer { curl.shutdown() }
            try await withThrowingTaskGroup(of: Void.self) { group in
                var urls: [String] = []
                var replicas: [(TaskclusterService, StepRunner)] = []
                for number in 0..<count {
                    let store = StepStore(
                        schema: TaskclusterMigrations.schema,
                        pool: pool,
                        announcement: StepAnnouncement(
                            exchange: "exchange/nowhere/v1/step-status",
                            service: "taskcluster",
                            baseURL: "http://taskcluster.example"
                        ),
                        now: clock.now
                    )
                    let service = TaskclusterService(
                        store: store,
                        client: TaskclusterClient(
                            rootURL: "https://tc.example.com",
                            credentials: { nil },
                            transport: queue,
                            retry: RetryPolicy(attempts: 1, base: .zero, maximum: .zero)
                        ),
                        hooksNameTasks: hooksNameTasks
                    )
                    let runner = StepRunner(
                        store: store,
                        owner: "replica-\(number)",
                        lease: lease,
                        look: service.look
                    )
                    let api = TaskclusterAPI(service: service, tokens: nil, isPublic: false)
                    urls.append(
                        await StepServers.serve(
                            api.api(schemas: try SchemaStore.locate()),
                            authenticator: NamedCallers(),
                            in: &group
                        )
                    )
                    group.addTask { try await store.changes.run() }
                    replicas.append((service, runner))
                }
                defer { group.cancelAll() }
                try await body(
                    TaskclusterWorld(
                        pool: pool,
                        queue: queue,
                        clock: clock,
                        servers: StepServers(curl: curl, urls: urls),
                        replicas: replicas
                    )
                )
            }
        }
    }

    struct NoStep: Error, CustomStringConvertible {
        let description: String
    }

    /// Creates a step.
    func create(_ uid: String, _ definition: JSONValue) async throws {
        let answer = try await servers.call("PUT", "/\(uid)", definition)
        guard answer.status == 200 else {
            throw NoStep(description: "no step \(uid): \(answer.status) \(answer.body)")
        }
    }

    /// Looks at what is due, and again after each second of the clock.
    func advance(_ seconds: Int = 1, every step: Int = 1, replica: Int = 0) async throws {
        for _ in stride(from: 0, to: seconds, by: step) {
            clock.advance(by: .seconds(step))
            _ = try await withLogger(StepServers.quiet) { _ in try await replicas[replica].runner.runOnce() }
        }
    }

    func status(_ uid: String) async throws -> JSONValue {
        try await servers.call("GET", "/\(uid)/status").body
    }

    func state(_ uid: String) async throws -> String {
        try await status(uid)["state"]?.string ?? ""
    }

    func kinds(_ uid: String) async throws -> [String] {
        try await servers.call("GET", "/\(uid)/events?limit=500").body["events"]?.array?
            .compactMap { $0["kind"]?.string } ?? []
    }
}
