// SPDX-License-Identifier: MPL-2.0

import Crypto
import CryptoExtras
import HTTPClient
import JSON
import Schedules
import StepKit
import Taskcluster
import Testing

/// Which keys of an issuer count.
struct KeySetTests {
    /// A key set as it is, whoever asks.
    private struct Keys: HTTPTransport {
        let members: [JSONValue]

        func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
            HTTPResponse(status: 200, body: JSONValue.object(["keys": .array(members)]).bytes())
        }
    }

    /// A verifier that accepts every algorithm we know, in front of these keys.
    private func verifier(_ members: [JSONValue]) -> TokenVerifier {
        var rules = TokenRules(issuer: "https://login.example.com/", audience: "tests")
        rules.algorithms = Set(TokenAlgorithm.allCases)
        return TokenVerifier(
            rules: rules,
            keysURL: "https://login.example.com/keys",
            transport: Keys(members: members)
        )
    }

    /// A token of somebody, signed as told.
    private func token(_ algorithm: String, _ key: String, sign: ([UInt8]) throws -> [UInt8]) rethrows -> String {
        let now = Int(Timestamp.now().milliseconds / 1000)
        let head: JSONValue = ["alg": .string(algorithm), "kid": .string(key)]
        let claims: JSONValue = [
            "iss": "https://login.example.com/", "aud": "tests", "sub": "ann", "iat": JSONValue(now),
            "exp": JSONValue(now + 600),
        ]
        let text = "\(Base64.urlEncoded(head.bytes())).\(Base64.urlEncoded(claims.bytes()))"
        return "Bearer \(text).\(Base64.urlEncoded(try sign(Array(text.utf8))))"
    }

    /// What a verifier makes of a token: the person, or the code of the refusal.
    private func outcome(_ verifier: TokenVerifier, _ token: String) async -> String {
        do throws(StepProblem) {
            return try await verifier.person(token).subject
        } catch {
            return error.code
        }
    }

    private func text(_ bytes: some Sequence<UInt8>) -> JSONValue { .string(Base64.urlEncoded(Array(bytes))) }

    @Test func `a key signs by each algorithm of its kind, in any order, and by no other`() async throws {
        let rsa = try _RSA.Signing.PrivateKey(keySize: .bits2048)
        let parts = try rsa.publicKey.getKeyPrimitives()
        let curve = P256.Signing.PrivateKey()
        let point = curve.publicKey.rawRepresentation
        let verifier = verifier([
            ["kty": "RSA", "kid": "rsa", "n": text(parts.modulus), "e": text(parts.publicExponent)],
            ["kty": "EC", "kid": "curve", "crv": "P-256", "x": text(point.prefix(32)), "y": text(point.suffix(32))],
        ])
        func signed(_ bytes: [UInt8], _ padding: _RSA.Signing.Padding) throws -> [UInt8] {
            Array(try rsa.signature(for: SHA256.hash(data: bytes), padding: padding).rawRepresentation)
        }
        for _ in 0..<2 {
            let plain = try token("RS256", "rsa") { try signed($0, .insecurePKCS1v1_5) }
            #expect(await outcome(verifier, plain) == "ann")
            let salted = try token("PS256", "rsa") { try signed($0, .PSS) }
            #expect(await outcome(verifier, salted) == "ann")
            let short = try token("ES256", "curve") { Array(try curve.signature(for: $0).rawRepresentation) }
            #expect(await outcome(verifier, short) == "ann")
            let wrong = [
                try token("PS256", "rsa") { try signed($0, .insecurePKCS1v1_5) },
                try token("RS256", "rsa") { try signed($0, .PSS) },
                try token("RS256", "curve") { try signed($0, .insecurePKCS1v1_5) },
                try token("ES256", "rsa") { Array(try curve.signature(for: $0).rawRepresentation) },
                try token("ES256", "curve") { Array(try curve.signature(for: $0).derRepresentation) },
                token("RS256", "rsa") { _ in [1] },
            ]
            for token in wrong { #expect(await outcome(verifier, token) == "invalid_signature") }
        }
    }

    @Test func `members of a key set that no person's token may use serve nobody, and the others all the same`()
        async throws
    {
        let rsa = try _RSA.Signing.PrivateKey(keySize: .bits2048)
        let parts = try rsa.publicKey.getKeyPrimitives()
        let wide = P384.Signing.PrivateKey().publicKey.rawRepresentation
        func member(_ name: String, _ more: JSONObject) -> JSONValue {
            var all: JSONObject = [
                "kty": "RSA", "kid": .string(name), "n": text(parts.modulus), "e": text(parts.publicExponent),
            ]
            for (key, value) in more { all[key] = value }
            return .object(all)
        }
        let verifier = verifier([
            ["kty": "of the future", "kid": "future"], "not a key", ["kty": "RSA", "kid": "empty"],
            member("sealing", ["use": "enc"]), member("short", ["n": text(parts.modulus.prefix(128))]),
            ["kty": "EC", "kid": "wide", "crv": "P-384", "x": text(wide.prefix(48)), "y": text(wide.suffix(48))],
            member("other", ["alg": "RS512"]), member("good", ["use": "sig", "alg": "RS256"]),
        ])
        func signed(_ name: String) throws -> String {
            try token("RS256", name) { bytes in
                Array(
                    try rsa.signature(for: SHA256.hash(data: bytes), padding: .insecurePKCS1v1_5).rawRepresentation
                )
            }
        }
        #expect(await outcome(verifier, try signed("good")) == "ann")
        for name in ["future", "empty", "sealing", "short", "wide", "other", "nobody"] {
            #expect(await outcome(verifier, try signed(name)) == "invalid_key", "\(name)")
        }
    }
}
