// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Outbox
import Postgres
import Pulse
import Schedules
import Synchronization
import Taskcluster
import TestSupport

@testable import BridgesKit

/// A database with the tables of bridges, a namespace of the broker, and servers that receive webhooks.
struct BridgesWorld: Sendable {
    static let secret = "a secret of the tests"

    let pool: PostgresPool
    let pulse: PulseConnection
    let outbox = Outbox(schema: "bridges")
    let namespace: String
    let curl: CurlTransport
    let urls: [String]

    /// The queue that gets all that is published to the exchanges named in ``with``.
    var queue: PulseQueue { PulseQueue("queue/\(namespace)/all", kind: .classic) }

    var store: DeliveryStore { DeliveryStore(pool: pool, outbox: outbox, namespace: namespace) }

    /// A GitHub source without limits that matter.
    static func gitHub(rate: Double = 100_000, burst: Int = 1_000_000, bodyLimit: Int = 1 << 20) -> WebhookSource {
        WebhookSource(
            name: "github",
            kind: .github(acceptsSHA1: false),
            secrets: [Secret(secret), Secret("the next secret")],
            bodyLimit: bodyLimit,
            rate: rate,
            burst: burst
        )
    }

    /// Builds a world with servers for some sources and takes everything down afterwards.
    static func with<R: Sendable>(
        _ sources: [WebhookSource] = [gitHub()],
        servers: Int = 1,
        exchanges: [String] = ["github"],
        patience: Duration = .seconds(60),
        _ body: @Sendable @escaping (BridgesWorld) async throws -> R
    ) async throws -> R {
        try await OwnDatabase.with("bridges", poolSize: 6) { pool, _ in
            let pulse = PulseConnection(try PulseConfiguration(url: Broker.url), name: "bridges-tests")
            let curl = CurlTransport()
            let namespace = Broker.uniqueName()
            func cleanUp() async {
                _ = try? await pulse.deleteQueue("queue/\(namespace)/all")
                for name in exchanges { try? await pulse.deleteExchange("exchange/\(namespace)/v1/\(name)") }
                await pulse.shutDown()
                curl.shutdown()
            }
            do {
                try await BridgesMigrations.migrate(pool)
                let bare = BridgesWorld(pool: pool, pulse: pulse, namespace: namespace, curl: curl, urls: [])
                try await pulse.declareQueue(bare.queue)
                for name in exchanges {
                    let exchange = BridgeExchange.name(name, namespace: namespace)
                    try await pulse.declareExchange(exchange)
                    try await pulse.bind(queue: bare.queue.name, exchange: exchange, routingKey: "#")
                }
                let result = try await serve(bare, sources, servers, patience, body)
                await cleanUp()
                return result
            } catch {
                await cleanUp()
                throw error
            }
        }
    }

    private static func serve<R: Sendable>(
        _ bare: BridgesWorld,
        _ sources: [WebhookSource],
        _ count: Int,
        _ patience: Duration,
        _ body: @Sendable @escaping (BridgesWorld) async throws -> R
    ) async throws -> R {
        let schemas = try SchemaStore.locate()
        return try await withThrowingTaskGroup(of: Void.self) { group in
            var urls: [String] = []
            for _ in 0..<count {
                let repositories = RepositoryStore(pool: bare.pool, outbox: bare.outbox)
                let server = HTTPServer(
                    configuration: HTTPServerConfiguration(),
                    name: "bridges-tests",
                    rootURL: "http://bridges.example",
                    apis: [BridgesAPI(deliveries: bare.store, repositories: repositories).api(schemas: schemas)],
                    authenticator: TrustingAuthenticator(),
                    health: HealthRegistry(),
                    raw: [WebhookReceiver(sources: sources, store: bare.store, patience: patience).route]
                )
                group.addTask { try await server.run() }
                urls.append("http://127.0.0.1:\(await server.waitUntilListening())")
            }
            defer { group.cancelAll() }
            return try await body(
                BridgesWorld(
                    pool: bare.pool,
                    pulse: bare.pulse,
                    namespace: bare.namespace,
                    curl: bare.curl,
                    urls: urls
                )
            )
        }
    }

    // MARK: - Sending

    /// The value of GitHub's signature header.
    static func signature(_ body: [UInt8], secret: String = secret) -> String {
        "sha256=" + Hexadecimal.encode(Signature.code(.sha256, Array(secret.utf8), body))
    }

    /// Sends bytes with the headers of GitHub, signed; headers replace those, an empty value leaves one out.
    func post(
        _ body: [UInt8],
        id: String,
        event: String = "push",
        headers: [String: String] = [:],
        path: String = "/webhooks/github",
        server: Int = 0
    ) async throws -> HTTPResponse {
        var fields: HTTPHeaders = [
            "Content-Type": "application/json", "X-GitHub-Event": event, "X-GitHub-Delivery": id,
            "X-Hub-Signature-256": Self.signature(body),
        ]
        for (name, value) in headers { fields[name] = value.isEmpty ? nil : value }
        return try await curl.send(
            HTTPRequest(method: "POST", url: urls[server] + path, headers: fields, body: .bytes(body))
        )
    }

    /// Sends a value with the headers of GitHub, signed.
    func post(_ value: JSONValue, id: String, event: String = "push", server: Int = 0) async throws -> HTTPResponse {
        try await post(value.bytes(), id: id, event: event, server: server)
    }

    /// Calls the API with scopes.
    func call(_ method: String, _ path: String, scopes: String = "*") async throws -> (status: Int, body: JSONValue) {
        let request = HTTPRequest(
            method: method,
            url: "\(urls[0])/api/bridges/v1\(path)",
            headers: ["Authorization": scopes]
        )
        let response = try await curl.send(request)
        return (response.status, (try? response.json()) ?? .null)
    }

    // MARK: - Looking

    func count(_ table: String) async throws -> Int {
        try await pool.query("select count(*) as n from bridges.\(unsafe: table)").first?.int("n") ?? -1
    }

    /// Publishes what is in the outbox.
    @discardableResult
    func relay() async throws -> Int {
        try await OutboxRelay(outbox: outbox, pool: pool, pulse: pulse).drain()
    }

    /// Consumes until as many messages as expected have arrived and nothing comes for a moment.
    func received(_ count: Int) async throws -> [PulseDelivery] {
        let deliveries = Deliveries()
        let wanted = PulseSubscription(queue: queue, bindings: [], prefetch: 200)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                do {
                    try await pulse.consume(wanted) { delivery in
                        deliveries.add(delivery)
                        return .ack
                    }
                } catch is CancellationError {}
            }
            try await eventually { deliveries.all.count >= count }
            // One that is too many would already be on its way.
            try await Task.sleep(for: .milliseconds(100))
            group.cancelAll()
            try await group.waitForAll()
        }
        return deliveries.all
    }
}

private final class Deliveries: Sendable {
    private let entries = Mutex<[PulseDelivery]>([])

    var all: [PulseDelivery] { entries.withLock { $0 } }

    func add(_ delivery: PulseDelivery) { entries.withLock { $0.append(delivery) } }
}
