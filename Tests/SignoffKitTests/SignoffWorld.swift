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

@testable import SignoffKit

/// A key set on the network that can be away, and counts who asks.
final class KeyServer: HTTPTransport {
    let issuer: TestIssuer
    private let state = Mutex((isDown: false, asked: [String]()))

    init(_ issuer: TestIssuer) {
        self.issuer = issuer
    }

    var asked: [String] { state.withLock { $0.asked } }

    func takeDown(_ isDown: Bool) { state.withLock { $0.isDown = isDown } }

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let isDown = state.withLock { state in
            state.asked.append(request.url)
            return state.isDown
        }
        if isDown { throw HTTPClientError(.connect, "refused") }
        do {
            return HTTPResponse(status: 200, body: try issuer.keySet().bytes())
        } catch {
            throw HTTPClientError(.other, "\(error)")
        }
    }
}

/// A database with the tables of sign-offs, servers in front of it, and an issuer of tokens.
struct SignoffWorld: Sendable {
    static let issuerURL = "https://login.example.com/"
    static let audience = "shipit-tests"

    let pool: PostgresPool
    let store: StepStore
    let service: SignoffService
    let issuer: TestIssuer
    let keys: KeyServer
    let clock: TestClock
    let curl: CurlTransport
    let urls: [String]

    /// Builds a world and takes everything down afterwards.
    static func with(
        servers: Int = 1,
        directory: GroupDirectory? = nil,
        balrog: Balrog? = nil,
        login: LoginPage? = nil,
        isPublic: Bool = false,
        verifier: TokenVerifier? = nil,
        deletesAll: Bool = false,
        exchange: String = "exchange/nowhere/v1/step-status",
        _ body: @Sendable @escaping (SignoffWorld) async throws -> Void
    ) async throws {
        try await OwnDatabase.with("signoff") { url in
            let pool = PostgresPool(PostgresConfiguration(url: url, applicationName: "signoff-tests", poolSize: 8))
            defer { pool.close() }
            try await SignoffMigrations.migrate(pool)
            let curl = CurlTransport()
            defer { curl.shutdown() }
            let clock = TestClock(.now())
            let issuer = try TestIssuer()
            let keys = KeyServer(issuer)
            let schemas = try SchemaStore.locate()
            try await withThrowingTaskGroup(of: Void.self) { group in
                var urls: [String] = []
                var stores: [(StepStore, SignoffService)] = []
                for _ in 0..<servers {
                    let store = StepStore(
                        schema: SignoffMigrations.schema,
                        pool: pool,
                        announcement: StepAnnouncement(
                            exchange: exchange,
                            service: "signoff",
                            baseURL: "http://signoff.example"
                        ),
                        now: clock.now
                    )
                    let tokens = verifier ?? tokens(keys, clock)
                    var service = SignoffService(
                        store: store,
                        requiresSecondFactor: true,
                        longestLogin: 43_200,
                        directory: directory,
                        balrog: balrog
                    )
                    service.aliasDeletesAll = deletesAll
                    stores.append((store, service))
                    let api = SignoffAPI(service: service, tokens: tokens, isPublic: isPublic, login: login)
                    urls.append(
                        await StepServers.serve(api.api(schemas: schemas), authenticator: NamedCallers(), in: &group)
                    )
                    group.addTask { try await store.changes.run() }
                }
                defer { group.cancelAll() }
                try await body(
                    SignoffWorld(
                        pool: pool,
                        store: stores[0].0,
                        service: stores[0].1,
                        issuer: issuer,
                        keys: keys,
                        clock: clock,
                        curl: curl,
                        urls: urls
                    )
                )
            }
        }
    }

    private static func tokens(_ keys: KeyServer, _ clock: TestClock) -> TokenVerifier {
        var rules = TokenRules(issuer: issuerURL, audience: audience, clients: ["ui"])
        rules.refusesTestIssuers = false
        let url = "\(issuerURL).well-known/jwks.json"
        return TokenVerifier(rules: rules, keysURL: url, transport: keys, now: clock.now)
    }

    // MARK: - People

    /// Somebody as the services know them by a token.
    func person(_ name: String) async throws -> Person {
        try await Self.tokens(keys, clock).person(try bearer(name))
    }

    /// The claims of somebody's token.
    func claims(_ name: String, _ groups: [String], email: String? = nil) -> JSONObject {
        var entry: JSONObject = ["groups": JSONValue(groups)]
        entry["email"] = email.map { .string($0) }
        return TestUser(name, entry).claims(issuer: Self.issuerURL, audience: Self.audience, now: clock.now())
    }

    /// An `Authorization` field of somebody, with claims replaced; null removes one.
    func bearer(
        _ name: String,
        _ groups: [String] = ["releng"],
        email: String? = nil,
        claims changes: JSONObject = [:],
        header: JSONObject = [:]
    ) throws -> String {
        var claims = claims(name, groups, email: email)
        for (key, value) in changes { claims[key] = value.isNull ? nil : value }
        return "Bearer " + (try issuer.token(claims, header: header))
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
        server: Int = 0
    ) async throws -> Answer {
        try await StepServers(curl: curl, urls: urls)
            .call(method, path, body, as: authorization, headers: headers, server: server)
    }

    /// Creates a step with a policy.
    func create(
        _ uid: String,
        _ definition: JSONValue,
        _ members: JSONObject = [:],
        as client: String = StepServers.client
    ) async throws {
        var policy: JSONObject = ["method": "local", "definition": definition]
        for (key, value) in members { policy[key] = value }
        let answer = try await call("PUT", "/\(uid)", ["policy": .object(policy), "parameters": [:]], as: client)
        guard answer.status == 200 else {
            throw NoStep(description: "no step \(uid): \(answer.status) \(answer.body)")
        }
    }

    struct NoStep: Error, CustomStringConvertible {
        let description: String
    }

    /// Signs for a group.
    @discardableResult
    func sign(_ uid: String, _ group: String = "releng", as person: String, server: Int = 0) async throws -> Answer {
        try await call("PUT", "/\(uid)/sign", ["group": .string(group)], as: person, server: server)
    }

    func state(_ uid: String) async throws -> String {
        try await call("GET", "/\(uid)/status").body["state"]?.string ?? ""
    }
}
