// SPDX-License-Identifier: MPL-2.0

import APIServer
import HTTPClient
import JSON
import Schedules
import StepTestSupport
import Glibc
import Synchronization
import TestSupport
import Testing

@testable import SignoffKit
@testable import StepKit

/// Tokens that say nothing themselves: their issuer is asked whose they are.
@Suite(.timeLimit(.minutes(5)))
struct OpaqueTokenTests {
    private func verifier(
        _ url: String,
        _ good: OpaqueTokens,
        curl: CurlTransport,
        refusesTests: Bool = false,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) -> TokenVerifier {
        var rules = TokenRules(issuer: url, audience: SignoffWorld.audience)
        rules.refusesTestIssuers = refusesTests
        rules.opaqueTokens = good
        return TokenVerifier(rules: rules, keysURL: "\(url).well-known/jwks.json", transport: curl, now: now)
    }

    /// The code of the refusal of a token; `accepted` when there is none.
    private func outcome(_ verifier: TokenVerifier, _ token: String, signing: Bool = false) async -> String {
        do throws(StepProblem) {
            let person =
                try await signing ? verifier.person("Bearer \(token)") : verifier.recentPerson("Bearer \(token)")
            return "accepted \(person.name)"
        } catch {
            return "\(error.status) \(error.code)"
        }
    }

    private static let anna: JSONValue = [
        "sub": "ad|anna", "email": "Anna@Example.com", "email_verified": true, "groups": ["releng"],
        "multifactor": ["duo"],
    ]

    private static func issuer(_ answer: @escaping @Sendable (String) -> TestServer.Reaction) -> TestServer {
        TestServer { request in
            let field = request.head.split(separator: "\r\n").first { $0.lowercased().hasPrefix("authorization: ") }
            guard request.line == "GET /userinfo HTTP/1.1", let field else { return .answer("HTTP/1.1 404 No\r\n\r\n") }
            return answer(String(field.dropFirst("authorization: Bearer ".count)))
        }
    }

    @Test func `they are good for nothing, for reading or for everything, as is configured`() async throws {
        let server = Self.issuer { _ in ok(Self.anna.text()) }
        let curl = CurlTransport()
        defer {
            server.close()
            curl.shutdown()
        }
        let expected: [OpaqueTokens: [String]] = [
            .nothing: ["401 invalid_header", "401 invalid_header"],
            .reading: ["accepted anna@example.com", "401 invalid_header"],
            .everything: ["accepted anna@example.com", "accepted anna@example.com"],
        ]
        for (good, outcomes) in expected {
            let verifier = verifier(server.url("/"), good, curl: curl)
            #expect(await outcome(verifier, "opaque-1") == outcomes[0])
            #expect(await outcome(verifier, "opaque-1", signing: true) == outcomes[1])
        }
        #expect(server.requests.allSatisfy { !$0.line.contains("opaque") })
        let person = try await verifier(server.url("/"), .everything, curl: curl).person("bearer x")
        #expect(person.usedSecondFactor && person.groups == ["releng"] && person.authenticated == nil)
        #expect(!person.isMachine && person.expires <= .now())
    }

    @Test(
        arguments: [
            ("HTTP/1.1 200 OK", "Unauthorized", "401 invalid_token"),
            ("HTTP/1.1 200 OK", #""Unauthorized""#, "401 invalid_token"),
            ("HTTP/1.1 200 OK", "{}", "401 invalid_claims"),
            ("HTTP/1.1 200 OK", #"{"sub": "ad|a", "sub": "ad|b"}"#, "401 invalid_token"),
            ("HTTP/1.1 200 OK", #"{"sub": "ad|a", "exp": 1000}"#, "401 token_expired"),
            ("HTTP/1.1 401 Unauthorized", #"{"sub": "ad|a"}"#, "401 invalid_token"),
            ("HTTP/1.1 403 Forbidden", "", "401 invalid_token"),
            ("HTTP/1.1 302 Found\r\nLocation: /userinfo", "", "503 userinfo_unavailable"),
            ("HTTP/1.1 429 Too Many Requests", "", "503 userinfo_unavailable"),
            ("HTTP/1.1 500 Oh", #"{"sub": "ad|a"}"#, "503 userinfo_unavailable"),
        ]
    )
    func `what the issuer does not vouch for plainly is refused`(
        _ status: String,
        _ body: String,
        _ expected: String
    ) async throws {
        let server = Self.issuer { _ in .answer("\(status)\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)") }
        let curl = CurlTransport()
        defer {
            server.close()
            curl.shutdown()
        }
        #expect(await outcome(verifier(server.url("/"), .reading, curl: curl), "opaque") == expected)
    }

    @Test func `what looks like a signed token is never looked up, nor what could be no token`() async throws {
        let server = Self.issuer { _ in ok(Self.anna.text()) }
        let curl = CurlTransport()
        defer {
            server.close()
            curl.shutdown()
        }
        let verifier = verifier(server.url("/"), .everything, curl: curl)
        let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."
        for token in [unsigned, "a.b.c", "..", "a\u{e4}b", "a,b", String(repeating: "x", count: 17_000)] {
            #expect(await outcome(verifier, token).hasPrefix("401 invalid_"), "\(token.prefix(20))")
        }
        #expect(server.requests.isEmpty)
        // An encrypted token has five parts, and its owner cannot be read from it either.
        #expect(await outcome(verifier, "e30..aa.bb.cc") == "accepted anna@example.com")
    }

    @Test func `an answer counts for a minute, by the token, and a refusal for a moment`() async throws {
        let server = Self.issuer { $0 == "good" ? ok(Self.anna.text()) : ok("Unauthorized") }
        let curl = CurlTransport()
        let clock = TestClock(.now())
        defer {
            server.close()
            curl.shutdown()
        }
        let verifier = verifier(server.url("/"), .everything, curl: curl, now: clock.now)
        for _ in 0..<3 {
            #expect(await outcome(verifier, "good") == "accepted anna@example.com")
            #expect(await outcome(verifier, "good", signing: true) == "accepted anna@example.com")
            #expect(await outcome(verifier, "bad") == "401 invalid_token")
        }
        #expect(server.requests.count == 2)
        clock.advance(by: .seconds(11))
        _ = await outcome(verifier, "bad")
        _ = await outcome(verifier, "good")
        #expect(server.requests.count == 3)
        clock.advance(by: .seconds(50))
        _ = await outcome(verifier, "good")
        #expect(server.requests.count == 4)
    }

    @Test func `many who bring one token ask once, and many tokens at a time are too many`() async throws {
        let gate = Atomic(false)
        let asked = Atomic(0)
        let curl = CurlTransport()
        let server = Self.issuer { _ in
            asked.add(1, ordering: .relaxed)
            while !gate.load(ordering: .acquiring) { usleep(2000) }
            return ok(Self.anna.text())
        }
        defer {
            gate.store(true, ordering: .releasing)
            server.close()
            curl.shutdown()
        }
        let directory = UserDirectory(url: server.url("/userinfo"), transport: curl, limit: 3, questions: 2) { .now() }
        func claims(_ token: String) async -> String {
            do throws(StepProblem) {
                return try await directory.claims(of: token)["sub"]?.string ?? ""
            } catch {
                return error.code
            }
        }
        try await withThrowingTaskGroup(of: String.self) { group in
            for _ in 0..<20 { group.addTask { await claims("one") } }
            group.addTask { await claims("two") }
            try await eventually { asked.load(ordering: .relaxed) == 2 }
            #expect(await claims("three") == "userinfo_unavailable")
            gate.store(true, ordering: .releasing)
            var outcomes: Set<String> = []
            for try await outcome in group { outcomes.insert(outcome) }
            #expect(outcomes == ["ad|anna"])
        }
        #expect(asked.load(ordering: .relaxed) == 2)
        // What does not fit is asked about again; what is known stays known.
        for token in ["three", "four", "five", "five", "one"] { #expect(await claims(token) == "ad|anna") }
        #expect(asked.load(ordering: .relaxed) == 6)
    }

    @Test func `the issuer for tests hands them out, and its word is not taken outside of tests`() async throws {
        let curl = CurlTransport()
        defer { curl.shutdown() }
        let users = [TestUser("anna", ["groups": ["releng"]]), TestUser("robot", ["gty": "client-credentials"])]
        let api = TestIssuerAPI(
            issuer: try TestIssuer(),
            users: users,
            url: SignoffWorld.issuerURL,
            audience: SignoffWorld.audience
        )
        try await withThrowingTaskGroup(of: Void.self) { group in
            defer { group.cancelAll() }
            let schemas = try SchemaStore.locate()
            let address = await StepServers.serve(api.api(schemas: schemas), authenticator: nil, in: &group)
            let url = address + "/"
            let servers = StepServers(curl: curl, urls: [address])
            @Sendable func token(_ user: String) async throws -> String {
                let body: JSONValue = ["user": .string(user), "opaque": true]
                return try await servers.call("POST", "/token", body, as: nil).body["access_token"]?.string ?? ""
            }
            let anna = try await token("anna")
            #expect(await outcome(verifier(url, .reading, curl: curl), anna) == "accepted anna@example.com")
            #expect(await outcome(verifier(url, .reading, curl: curl), "another") == "401 invalid_token")
            let strict = verifier(url, .reading, curl: curl, refusesTests: true)
            #expect(await outcome(strict, anna) == "401 invalid_claims")
            try await SignoffWorld.with(verifier: verifier(url, .everything, curl: curl)) { world in
                try await world.create("s", ["releng": 1])
                let robot = try await token("robot")
                #expect(try await world.call("GET", "/s", as: "Bearer \(robot)").status == 401)
                let refused = try await world.call("PUT", "/s/sign", ["group": "releng"], as: "Bearer \(robot)")
                #expect(refused.code == "human_required")
                #expect(try await world.call("GET", "/s", as: "Bearer \(anna)").status == 200)
                let signed = try await world.call("PUT", "/s/sign", ["group": "releng"], as: "Bearer \(anna)")
                #expect(signed.status == 200, "\(signed.body)")
                #expect(try await world.state("s") == "completed")
            }
        }
    }
}
