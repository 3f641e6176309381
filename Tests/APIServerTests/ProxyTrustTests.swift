// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import Taskcluster
import Testing

/// Whose word counts about where a request came from.
@Suite(.timeLimit(.minutes(5)))
struct ProxyTrustTests {
    private static let base = "/api/tests/v1"

    private static func trust(_ environment: [String: String]) throws -> ProxyTrust {
        let settings = Settings(environment: environment)
        let trust = ProxyTrust(settings: settings)
        try settings.check()
        return trust
    }

    @Test(
        arguments: [
            // Nobody but proxies is believed.
            ("198.51.100.1", "203.0.113.7", "198.51.100.1"),
            // What stands before the first stranger was said by that stranger.
            ("10.0.0.1", "127.0.0.1, 203.0.113.7", "203.0.113.7"),
            ("10.0.0.1", "1.1.1.1,203.0.113.7,10.9.9.9, fd00::5", "203.0.113.7"),
            ("::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7"),
            ("fd00::1", "2001:db8::7", "2001:db8::7"),
            // From within.
            ("10.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
            ("10.0.0.1", nil, "10.0.0.1"),
            // What is no address says nothing, nor does what stands before it.
            ("10.0.0.1", "203.0.113.7, unknown, 10.3.3.3", "10.3.3.3"),
            ("10.0.0.1", "203.0.113.7, unknown", "10.0.0.1"),
            ("10.0.0.1", "203.0.113.7,", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            // Some proxies write the port, too.
            ("10.0.0.1", "203.0.113.7:5123", "203.0.113.7"),
            ("10.0.0.1", "[2001:db8::7]:5123", "2001:db8::7"),
        ] as [(String, String?, String)]
    )
    func `addresses are believed from the right, as far as proxies are named`(
        _ peer: String,
        _ told: String?,
        _ expected: String
    ) throws {
        let trust = try Self.trust(["TRUSTED_PROXIES": "10.0.0.0/8, fd00::/8"])
        #expect(trust.caller(peer: peer, forwardedFor: told) == expected)
    }

    @Test func `everybody is believed if that is wished, and otherwise nobody`() throws {
        let anybody = try Self.trust(["TRUST_PROXY": "true"])
        #expect(anybody.caller(peer: "198.51.100.1", forwardedFor: "203.0.113.7, 192.0.2.1") == "203.0.113.7")
        let nobody = try Self.trust([:])
        #expect(nobody == .nobody)
        #expect(nobody.caller(peer: "10.0.0.1", forwardedFor: "203.0.113.7") == "10.0.0.1")
        #expect(try Self.trust(["TRUSTED_PROXIES": " , "]) == .nobody)
    }

    @Test(
        arguments: [
            ["TRUSTED_PROXIES": "10.0.0.0/8, here"], ["TRUSTED_PROXIES": "10.0.0.0/40"], ["TRUSTED_PROXIES": "*"],
            ["TRUSTED_PROXIES": "proxy.example.com"], ["TRUSTED_PROXIES": "10.0.0.0/8", "TRUST_PROXY": "true"],
        ]
    )
    func `what is no network, and what contradicts itself, is refused at the start`(_ environment: [String: String]) {
        let error = #expect(throws: ConfigurationError.self) { try Self.trust(environment) }
        #expect(error?.problems.count == 1)
        #expect(error?.problems.first?.hasPrefix("TRUSTED_PROXIES ") == true)
    }

    @Test(arguments: [("127.0.0.0/8", true), ("10.0.0.0/8", false)])
    func `address, scheme and port are taken from proxies that are named, and from nobody else`(
        _ network: String,
        _ isBelieved: Bool
    ) async throws {
        var configuration = HTTPServerConfiguration()
        configuration.trust = .networks([try #require(AddressRange(network))])
        let recorder = RecordingAuthenticator()
        try await TestServer.run(authenticator: recorder, configuration: configuration) { (server) async throws in
            let forwarded = [("X-Forwarded-For", "192.0.2.1, 203.0.113.7")]
            #expect(try await server.send("GET", Self.base + "/thing/a", headers: forwarded).status == 404)
            #expect(recorder.addresses == [isBelieved ? "203.0.113.7" : "127.0.0.1"])
        }
        configuration.forcesTLS = true
        try await TestServer.run(configuration: configuration) { (server) async throws in
            let secured = [("X-Forwarded-Proto", "https")]
            let answer = try await server.send("GET", Self.base + "/ping", headers: secured)
            #expect(answer.status == (isBelieved ? 200 : 308))
        }
        configuration.forcesTLS = false
        try await TestServer.run(configuration: configuration) { (server) async throws in
            let answer = try await server.send("GET", Self.base + "/ping", headers: [("X-Forwarded-Proto", "https")])
            #expect((answer.headers["Strict-Transport-Security"] != nil) == isBelieved)
        }
        #expect(try await signed(configuration) == (isBelieved ? 404 : 401))
    }

    @Test func `without named proxies anybody may tell the signed port, unless a service is stricter`() async throws {
        var configuration = HTTPServerConfiguration()
        #expect(try await signed(configuration) == 404)
        configuration.believesSignedPort = false
        #expect(try await signed(configuration) == 401)
        configuration.trust = .anybody
        #expect(try await signed(configuration) == 404)
    }

    /// What a server answers to a request that was signed for another port, as its fields say.
    private func signed(_ configuration: HTTPServerConfiguration) async throws -> Int {
        var status = 0
        try await TestServer.run(configuration: configuration) { (server) async throws in
            status = try await server.send(
                "GET",
                Self.base + "/thing/a",
                as: TestServer.ruler,
                signing: { $0.target = Hawk.Target(host: "h", port: 443, resource: $0.target.resource) },
                headers: [("Host", "h"), ("X-Forwarded-Port", "443")]
            ).status
        }
        return status
    }
}
