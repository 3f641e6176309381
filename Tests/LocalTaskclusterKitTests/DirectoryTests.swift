// SPDX-License-Identifier: MPL-2.0
import JSON
import Postgres
import Schedules
import Synchronization
import Taskcluster
import Testing

@testable import LocalTaskclusterKit

/// A directory with one client, on the database of a queue fixture, at a moment that tests choose.
private struct DirectoryFixture: Sendable {
    let store: DirectoryStore
    let pool: PostgresPool
    let clock: Clock
    let client = Hawk.Credentials(clientID: "issuer", accessToken: String(repeating: "t", count: 44))

    final class Clock: Sendable {
        private let moment = Mutex(Timestamp.now())
        var now: Timestamp { moment.withLock { $0 } }
        func move(_ by: Duration) { moment.withLock { $0 = $0 + by } }
    }

    static func with(
        scopes: [String] = ["a:*", "auth:create-client:issuer/*"],
        _ body: (DirectoryFixture) async throws -> Void
    ) async throws {
        try await QueueFixture.with { queue in
            let clock = Clock()
            let fixture = DirectoryFixture(
                store: DirectoryStore(pool: queue.pool) { clock.now },
                pool: queue.pool,
                clock: clock
            )
            let seed: JSONValue = [
                "clients": [
                    [
                        "clientId": .string(fixture.client.clientID),
                        "accessToken": .string(fixture.client.accessToken),
                        "scopes": .array(scopes.map { .string($0) }),
                    ]
                ]
            ]
            try await fixture.store.seed(
                Seed(json: seed, now: clock.now),
                anonymous: ["queue:status:*"],
                secretKey: "secret"
            )
            try await fixture.store.reload()
            try await body(fixture)
        }
    }

    /// Asks about a GET signed now.
    func ask(
        _ credentials: Hawk.Credentials,
        authorizedScopes: [String]? = nil,
        signed: Timestamp? = nil
    ) async throws -> AuthenticationResult {
        let resource = "/api/queue/v1/ping"
        let header = Hawk.authorization(
            for: "GET",
            url: HawkTarget(host: "localhost", port: 80, resource: resource),
            credentials: credentials,
            authorizedScopes: authorizedScopes,
            payload: nil,
            now: signed ?? clock.now,
            nonce: "n"
        )
        return try await store.authenticate(
            AuthenticationRequest(
                method: "get",
                resource: resource,
                host: "localhost",
                port: 80,
                authorization: header
            )
        )
    }

    func temporary(
        _ scopes: [String],
        named: String? = "issuer/x",
        start: Duration = .zero,
        expiry: Duration = .seconds(3600)
    ) -> Hawk.Credentials {
        TemporaryCredentials.issue(
            named: named,
            by: client,
            scopes: scopes,
            start: clock.now + start,
            expiry: clock.now + expiry
        )
    }
}

extension AuthenticationResult {
    fileprivate var grantedScopes: [String]? {
        if case .success(_, _, let scopes, _) = self { scopes } else { nil }
    }

    fileprivate var isRefused: Bool {
        if case .failed = self { true } else { false }
    }
}

@Suite(.timeLimit(.minutes(5)))
struct DirectoryTests {
    @Test func `Q3: a name for temporary credentials must be allowed to their issuer`() async throws {
        try await DirectoryFixture.with { directory in
            let answer1 = try await directory.ask(directory.temporary(["a:b"]))
            #expect(answer1.grantedScopes?.contains("a:b") == true)
            let answer2 = try await directory.ask(directory.temporary(["a:b"], named: "other"))
            #expect(answer2.isRefused)
        }
    }

    @Test func `Q4: certificates are good for what and as long as they say`() async throws {
        try await DirectoryFixture.with { directory in
            let minute: Double = 60
            let answer3 = try await directory.ask(directory.temporary(["b:c"]))
            #expect(answer3.isRefused)
            for (start, expiry, isGood) in [
                (-3600, -4 * minute, true), (-3600, -6 * minute, false), (4 * minute, 3600, true),
                (6 * minute, 3600, false), (0, 30 * 86_400, true), (0, 32 * 86_400, false),
            ] {
                let credentials = directory.temporary(["a:b"], start: .seconds(start), expiry: .seconds(expiry))
                let answer4 = try await directory.ask(credentials)
                #expect(answer4.isRefused != isGood)
            }
        }
    }

    @Test func `Q6: clocks may differ by a quarter of an hour`() async throws {
        try await DirectoryFixture.with { directory in
            let now = directory.clock.now
            let answer5 = try await directory.ask(directory.client, signed: now - .seconds(14 * 60))
            #expect(!answer5.isRefused)
            let answer6 = try await directory.ask(directory.client, signed: now - .seconds(16 * 60))
            #expect(answer6.isRefused)
            for (ahead, isGood) in [(14.0, true), (16, false)] {
                let answer = try await directory.ask(directory.client, signed: now + .seconds(ahead * 60))
                #expect(answer.isRefused != isGood)
            }
        }
    }

    @Test func `Q7: authorized scopes limit and never extend`() async throws {
        try await DirectoryFixture.with { directory in
            let scopes = try await directory.ask(directory.client, authorizedScopes: ["a:b"]).grantedScopes
            #expect(Set(scopes ?? []) == ["a:b", "assume:anonymous", "queue:status:*"])
            let answer7 = try await directory.ask(directory.client, authorizedScopes: ["b:c"])
            #expect(answer7.isRefused)
        }
    }

    @Test func `Q8: a signed address opens one path for a while`() async throws {
        try await DirectoryFixture.with { directory in
            func ask(_ resource: String, method: String = "get") async throws -> AuthenticationResult {
                try await directory.store.authenticate(
                    AuthenticationRequest(method: method, resource: resource, host: "localhost", port: 80)
                )
            }
            let url = try #require(
                Hawk.signedURL("http://localhost/a?x=1", credentials: directory.client, now: directory.clock.now)
            )
            let resource = String(url.dropFirst("http://localhost".count))
            let answer8 = try await ask(resource)
            #expect(!answer8.isRefused)
            let answer9 = try await ask(resource.replacing("/a", with: "/b"))
            #expect(answer9.isRefused)
            let answer10 = try await ask(resource, method: "post")
            #expect(answer10.isRefused)
            directory.clock.move(.seconds(16 * 60))
            let answer11 = try await ask(resource)
            #expect(answer11.isRefused)
        }
    }

    @Test func `Q11: a circle of roles leaves nothing behind`() async throws {
        try await DirectoryFixture.with { directory in
            func role(_ id: String, _ scopes: [String]) -> Role {
                Role(
                    id: id,
                    scopes: scopes,
                    description: "",
                    created: directory.clock.now,
                    lastModified: directory.clock.now
                )
            }
            _ = try await directory.store.createRole(role("a", ["assume:b"]), by: "me")
            await #expect(throws: QueueProblem.self) {
                try await directory.store.createRole(role("b", ["assume:a"]), by: "me")
            }
            #expect(try await directory.store.role("b") == nil)
        }
    }

    @Test func `Q11: of two roles that would close a circle together one is refused`() async throws {
        try await DirectoryFixture.with { directory in
            func create(_ id: String, _ other: String) async -> Bool {
                let now = directory.clock.now
                let role = Role(
                    id: id,
                    scopes: ["assume:\(other)"],
                    description: "",
                    created: now,
                    lastModified: now
                )
                return (try? await directory.store.createRole(role, by: "me")) != nil
            }
            async let first = create("one", "two")
            async let second = create("two", "one")
            let made = await [first, second]
            #expect(made.filter { $0 }.count == 1)
        }
    }

    @Test func `Q17: a new token replaces the old one for this instance and the others`() async throws {
        try await DirectoryFixture.with { directory in
            let record = ClientRecord(
                clientID: "c",
                description: "",
                scopes: ["x"],
                expires: directory.clock.now + .seconds(60),
                created: directory.clock.now
            )
            let old = try await directory.store.createClient(record, by: "me")
            let other = DirectoryStore(pool: directory.pool) { directory.clock.now }
            try await other.reload()
            let (_, new) = try await directory.store.resetAccessToken("c", by: "me")
            try await other.reloadIfChanged()
            for (token, isGood) in [(old, false), (new, true)] {
                let answer = try await directory.ask(Hawk.Credentials(clientID: "c", accessToken: token))
                #expect(answer.isRefused != isGood)
            }
            #expect(other.expand(["assume:anonymous"]) == directory.store.expand(["assume:anonymous"]))
            await #expect(throws: QueueProblem.self) {
                try await directory.store.resetAccessToken("static/x", by: "me")
            }
        }
    }

    @Test func `tokens are sealed and sealed again when the keys change`() async throws {
        try await DirectoryFixture.with { directory in
            let columns = "access_token, token_key, sealed_token"
            let before = try await directory.pool.query("select \(unsafe: columns) from tcl.clients")
            #expect(try before.map { try $0.string("access_token") } == [""])
            #expect(try before.map { try $0.string("token_key") } == ["derived"])
            let key = Base64.encoded([UInt8](repeating: 7, count: 32))
            let keys: JSONValue = [["id": "new", "algo": "aes-256", "key": .string(key)]]
            let rotated = DirectoryStore(pool: directory.pool, cryptoKeys: keys) { directory.clock.now }
            try await rotated.reload()
            #expect(try await rotated.sealAgain() == 1)
            #expect(try await rotated.sealAgain() == 0)
            let after = try await directory.pool.query("select \(unsafe: columns) from tcl.clients")
            #expect(try after.map { try $0.string("token_key") } == ["new"])
            #expect(try after[0].bytes("sealed_token") != before[0].bytes("sealed_token"))
        }
    }

    @Test func `static clients that the seed does not name any more are removed`() async throws {
        try await DirectoryFixture.with { directory in
            func seed(_ ids: [String]) async throws {
                let clients = ids.map { id -> JSONValue in
                    ["clientId": .string(id), "accessToken": .string(String(repeating: "x", count: 30))]
                }
                try await directory.store.seed(
                    Seed(json: ["clients": .array(clients)], now: directory.clock.now),
                    anonymous: [],
                    secretKey: nil
                )
            }
            try await seed(["static/one", "static/two"])
            try await seed(["static/two"])
            let left = try await directory.store.clients(prefix: "", after: nil, limit: 10).map(\.clientID)
            #expect(left == ["issuer", "static/two"])
        }
    }
}
