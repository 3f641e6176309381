// SPDX-License-Identifier: MPL-2.0

import Crypto
import HTTPClient
import JSON
import Schedules
import StepKit
import StepTestSupport
import Taskcluster
import Testing
import TestSupport

@testable import SignoffKit

/// Which tokens are believed.
@Suite(.timeLimit(.minutes(15)))
struct TokenTests {
    /// Tries a token on a step of its own; answers what came of it.
    private func attempt(_ world: SignoffWorld, _ token: String) async throws -> Answer {
        let uid = "t\(UInt32.random(in: .min ... .max))"
        try await world.create(uid, ["releng": 1])
        return try await world.sign(uid, as: token)
    }

    private func seconds(_ world: SignoffWorld, _ offset: Int) -> JSONValue {
        JSONValue(Int(world.clock.now().milliseconds / 1000) + offset)
    }

    @Test func `47: an expired token is refused, one that expired within the leeway is not`() async throws {
        try await SignoffWorld.with { world in
            let old = try await attempt(world, try world.bearer("a", claims: ["exp": seconds(world, -120)]))
            #expect(old.status == 401)
            #expect(old.code == "token_expired")
            #expect(try await attempt(world, try world.bearer("a", claims: ["exp": seconds(world, -30)])).status == 200)
            #expect(try await attempt(world, try world.bearer("a", claims: ["exp": nil])).code == "invalid_claims")
            let eternal = try world.bearer("a", claims: ["exp": seconds(world, 90_000)])
            #expect(try await attempt(world, eternal).code == "invalid_claims")
            let early = try world.bearer("a", claims: ["nbf": seconds(world, 120)])
            #expect(try await attempt(world, early).code == "invalid_claims")
        }
    }

    @Test func `48: tokens for others, and of others, are refused`() async throws {
        try await SignoffWorld.with { world in
            let wrong: [JSONObject] = [
                ["aud": "somebody-else"], ["aud": []], ["iss": "https://evil.example.com/"],
                ["iss": "https://login.example.com"], ["aud": ["shipit-tests", "userinfo"]],
                ["aud": ["shipit-tests", "userinfo"], "azp": "stranger"], ["sub": ""],
            ]
            for claims in wrong {
                let answer = try await attempt(world, try world.bearer("a", claims: claims))
                #expect(answer.status == 401, "\(claims)")
                #expect(answer.code == "invalid_claims", "\(claims)")
            }
            let several: JSONObject = ["aud": ["shipit-tests", "userinfo"], "azp": "ui"]
            #expect(try await attempt(world, try world.bearer("a", claims: several)).status == 200)
        }
    }

    @Test func `49: tokens that sign for themselves are refused without asking anybody`() async throws {
        try await SignoffWorld.with { world in
            let claims = JSONValue.object(world.claims("a", ["releng"])).bytes()
            func unsigned(_ header: JSONValue, _ signature: String) -> String {
                "Bearer \(Base64.urlEncoded(header.bytes())).\(Base64.urlEncoded(claims)).\(signature)"
            }
            let kid = JSONValue(world.issuer.keyID)
            let head: JSONValue = ["alg": "HS256", "kid": kid]
            let text = "\(Base64.urlEncoded(head.bytes())).\(Base64.urlEncoded(claims))"
            let key = SymmetricKey(data: Array(world.issuer.publicKeyText.utf8))
            let code = HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: key)
            let tokens = [
                unsigned(["alg": "none", "kid": kid], ""),
                unsigned(["alg": "none", "kid": kid], "AA"),
                unsigned(["alg": "None", "kid": kid], "AA"),
                "Bearer \(text).\(Base64.urlEncoded(Array(code)))",
                try world.bearer("a", header: ["kid": nil]),
                try world.bearer("a", header: ["jku": "https://evil.example.com/keys"]),
                try world.bearer("a", header: ["x5u": "https://evil.example.com/cert"]),
                try world.bearer("a", header: ["jwk": ["kty": "RSA"]]),
                try world.bearer("a", header: ["crit": ["x"]]),
                try world.bearer("a", header: ["alg": "PS256"]),
                "Bearer",
                "Bearer a b",
                "Bearer a.b",
                "Bearer " + String(repeating: "a", count: 20_000),
            ]
            for token in tokens {
                let answer = try await attempt(world, token)
                #expect(answer.status == 401, "\(token.prefix(60))")
            }
            #expect(world.keys.asked.isEmpty)
            // Another key under the name of the issuer's own makes no difference.
            let impostor = try TestIssuer()
            let rekeyed = try impostor.token(world.claims("a", ["releng"]), header: ["kid": kid])
            #expect(try await attempt(world, "Bearer \(rekeyed)").code == "invalid_signature")
            var broken = try world.bearer("a")
            broken = String(broken.dropLast(8)) + "AAAAAAAA"
            #expect(try await attempt(world, broken).code == "invalid_signature")
            #expect(world.keys.asked.allSatisfy { $0.hasPrefix("https://login.example.com/") })
        }
    }

    @Test func `50: a new key is fetched once, and unknown names of keys fetch nothing more for a while`() async throws
    {
        try await SignoffWorld.with { world in
            let old = try world.bearer("a")
            #expect(try await attempt(world, old).status == 200)
            #expect(world.keys.asked.count == 1)
            try world.issuer.rotate()
            world.clock.advance(by: .seconds(31))
            let fresh = try world.bearer("a")
            #expect(try await attempt(world, fresh).status == 200)
            #expect(world.keys.asked.count == 2)
            // What the old key signed is worth nothing now.
            #expect(try await attempt(world, old).code == "invalid_key")
            for number in 0..<20 {
                let flood = try world.bearer("a", header: ["kid": .string("k\(number)")])
                #expect(try await attempt(world, flood).code == "invalid_key")
            }
            #expect(world.keys.asked.count == 2)
            world.clock.advance(by: .seconds(31))
            try await withThrowingTaskGroup(of: String.self) { group in
                for number in 0..<10 {
                    let flood = try world.bearer("a", header: ["kid": .string("m\(number)")])
                    group.addTask { try await attempt(world, flood).code }
                }
                for try await code in group { #expect(code == "invalid_key") }
            }
            #expect(world.keys.asked.count == 3)
        }
    }

    @Test func `51: kept keys serve on while the issuer is away, and without any nobody signs`() async throws {
        try await SignoffWorld.with { world in
            #expect(try await attempt(world, try world.bearer("a")).status == 200)
            world.keys.takeDown(true)
            world.clock.advance(by: .seconds(3 * 3600))
            #expect(try await attempt(world, try world.bearer("a")).status == 200)
            world.clock.advance(by: .seconds(22 * 3600))
            let late = try await attempt(world, try world.bearer("a"))
            #expect(late.status == 503)
            #expect(late.code == "keys_unavailable")
        }
        try await SignoffWorld.with { world in
            world.keys.takeDown(true)
            let cold = try await attempt(world, try world.bearer("a"))
            #expect(cold.status == 503)
            world.keys.takeDown(false)
            world.clock.advance(by: .seconds(31))
            let warm = try await attempt(world, try world.bearer("a"))
            #expect(warm.status == 200)
        }
    }

    @Test func `52: without a second factor, or with an old login, a signer is asked to log in again`() async throws {
        try await SignoffWorld.with { world in
            let weak: [JSONObject] = [
                ["amr": ["pwd"]], ["amr": nil], ["auth_time": seconds(world, -43_300)], ["auth_time": nil],
            ]
            for claims in weak {
                let answer = try await attempt(world, try world.bearer("a", claims: claims))
                #expect(answer.status == 401, "\(claims)")
                #expect(answer.code == "mfa_required")
                let challenge = answer.headers["WWW-Authenticate"] ?? ""
                #expect(challenge.contains("error=\"insufficient_user_authentication\""))
                #expect(challenge.contains("max_age=\"43200\""))
            }
            try await world.create("short", ["releng": 1], ["max_auth_age_s": 60])
            let older = try world.bearer("a", claims: ["auth_time": seconds(world, -61)])
            #expect(try await world.sign("short", as: older).code == "mfa_required")
            try await world.create("lax", ["releng": 1], ["require_mfa": false])
            let old: JSONObject = ["amr": ["pwd"], "auth_time": seconds(world, -43_300)]
            #expect(try await world.sign("lax", as: try world.bearer("a", claims: old)).status == 200)
            // What a policy itself says of logins holds without a second factor, too.
            try await world.create("new", ["releng": 1], ["require_mfa": false, "max_auth_age_s": 60])
            #expect(try await world.sign("new", as: try world.bearer("a", claims: old)).code == "mfa_required")
            #expect(try await world.sign("new", as: try world.bearer("a", claims: ["amr": ["pwd"]])).status == 200)
        }
    }

    @Test func `53: a clock 45 seconds ahead of ours is borne, one ten minutes ahead is not`() async throws {
        try await SignoffWorld.with { world in
            // Everything that an issuer says about time is ahead as far as its clock is.
            func token(_ ahead: Int) throws -> String {
                let claims: JSONObject = [
                    "iat": seconds(world, ahead), "nbf": seconds(world, ahead), "auth_time": seconds(world, ahead),
                    "exp": seconds(world, ahead + 3600),
                ]
                return try world.bearer("a", claims: claims)
            }
            #expect(try await attempt(world, try token(45)).status == 200)
            let far = try await attempt(world, try token(600))
            #expect(far.status == 401)
            #expect(far.code == "invalid_claims")
            let ahead = try world.bearer("a", claims: ["iat": seconds(world, 600), "exp": seconds(world, 4200)])
            #expect(try await attempt(world, ahead).code == "invalid_claims")
        }
    }

    @Test func `54: machines do not sign, whatever they may do otherwise`() async throws {
        try await SignoffWorld.with { world in
            let hawk = try await attempt(world, "Hawk id=\"root\", ts=\"1\", nonce=\"a\", mac=\"b\"")
            #expect(hawk.status == 401)
            #expect(hawk.code == "human_required")
            for claims: JSONObject in [["gty": "client-credentials"], ["sub": "abc@clients"]] {
                let machine = try await attempt(world, try world.bearer("a", claims: claims))
                #expect(machine.status == 401)
                #expect(machine.code == "human_required")
                // Neither do they read with a token as people do.
                let reading = try await world.call("GET", "/", as: try world.bearer("a", claims: claims))
                #expect(reading.status == 401)
            }
            #expect(try await world.call("GET", "/", as: try world.bearer("a")).status == 200)
            let nobody = try await world.call("PUT", "/x/sign", ["group": "releng"], as: nil)
            #expect(nobody.status == 401)
            #expect(nobody.code == "authorization_header_missing")
        }
    }

    @Test func `56: a token in the query is refused and not repeated`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", ["releng": 1])
            let token = try world.bearer("a").dropFirst(7)
            let answer = try await world.call("PUT", "/s/sign?access_token=\(token)", ["group": "releng"], as: nil)
            #expect(answer.status == 400)
            #expect(!answer.body.text().contains(token))
        }
    }

    @Test func `issuers for tests are refused outside development`() async throws {
        let issuer = try TestIssuer()
        let keys = KeyServer(issuer)
        var rules = TokenRules(issuer: SignoffWorld.issuerURL, audience: SignoffWorld.audience)
        let token = TestUser("a", [:]).claims(
            issuer: SignoffWorld.issuerURL,
            audience: SignoffWorld.audience,
            now: .now()
        )
        let text = "Bearer " + (try issuer.token(token))
        let strict = TokenVerifier(rules: rules, keysURL: "k", transport: keys)
        await #expect(throws: StepProblem.self) { try await strict.person(text) }
        rules.refusesTestIssuers = false
        let lax = TokenVerifier(rules: rules, keysURL: "k", transport: keys)
        #expect(try await lax.person(text).subject == "ad|test|a")
    }

    @Test func `a reader's token is remembered for a moment, and no longer than it is valid`() async throws {
        let issuer = try TestIssuer()
        let clock = TestClock(.now())
        var rules = TokenRules(issuer: SignoffWorld.issuerURL, audience: SignoffWorld.audience)
        rules.refusesTestIssuers = false
        let verifier = TokenVerifier(rules: rules, keysURL: "k", transport: KeyServer(issuer), now: clock.now)
        func token(lifetime: Int) throws -> String {
            let user = TestUser("a", [:])
            return try issuer.token(
                user.claims(
                    issuer: SignoffWorld.issuerURL,
                    audience: SignoffWorld.audience,
                    now: clock.now(),
                    lifetime: lifetime
                )
            )
        }
        // It has expired within the leeway, which ends ten seconds from now.
        let ending = "Bearer " + (try token(lifetime: -50))
        #expect(try await verifier.recentPerson(ending).subject == "ad|test|a")
        clock.advance(by: .seconds(5))
        #expect(try await verifier.recentPerson(ending).subject == "ad|test|a")
        clock.advance(by: .seconds(10))
        await #expect(throws: StepProblem.self) { try await verifier.recentPerson(ending) }
        let good = "Bearer " + (try token(lifetime: 3600))
        #expect(try await verifier.recentPerson(good).subject == "ad|test|a")
        let forged = String(good.dropLast(8)) + "AAAAAAAA"
        await #expect(throws: StepProblem.self) { try await verifier.recentPerson(forged) }
        await #expect(throws: StepProblem.self) { try await verifier.recentPerson(nil) }
    }

    @Test func `a token from before its owner's revocation is not replayed`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", ["releng": 2])
            let old = try world.bearer("releng1")
            #expect(try await world.sign("s", as: old).status == 200)
            #expect(try await world.sign("s", as: old).code == "already_signed")
            world.clock.advance(by: .seconds(5))
            let rows = try await world.call("GET", "/s/signatures").body["signatures"]
            let subject = try #require(rows?[0]?["sub"])
            let answer = try await world.call("POST", "/admin/revocations", ["sub": subject, "reason": "left"])
            #expect(answer.body["revoked"] == ["s"])
            let replayed = try await world.sign("s", as: old)
            #expect(replayed.status == 401)
            #expect(replayed.code == "token_revoked")
            // Whoever may log in again may sign again.
            world.clock.advance(by: .seconds(5))
            #expect(try await world.sign("s", as: try world.bearer("releng1")).status == 200)
        }
    }

    @Test func `logins lead back to known addresses alone`() async throws {
        let page = LoginPage(
            issuer: SignoffWorld.issuerURL,
            audience: SignoffWorld.audience,
            client: "ui",
            callbacks: ["https://ship.example.com/back"]
        )
        try await SignoffWorld.with(login: page) { world in
            let known = "callback_url=https%3A%2F%2Fship.example.com%2Fback"
            let answer = try await world.call("GET", "/login?\(known)&state=s1&code_challenge=abc", as: nil)
            #expect(answer.status == 302)
            let target = try #require(answer.headers["Location"])
            #expect(target.hasPrefix("https://login.example.com/authorize?response_type=code&client_id=ui&"))
            #expect(target.contains("redirect_uri=https%3A%2F%2Fship.example.com%2Fback&"))
            #expect(target.hasSuffix("&state=s1&code_challenge=abc&code_challenge_method=S256"))
            for bad in [
                "", "callback_url=https%3A%2F%2Fevil.example.com%2Fback",
                "callback_url=https%3A%2F%2Fship.example.com%2Fback%2F..%2Fevil",
                "callback_url=https%3A%2F%2Fship.example.com.evil.example%2Fback",
                "callback_url=%2F%2Fevil.example.com",
                "\(known)&state=a%0D%0Ab",
            ] {
                #expect(try await world.call("GET", "/login?\(bad)", as: nil).status == 400, "\(bad)")
            }
        }
        try await SignoffWorld.with { world in
            let answer = try await world.call("GET", "/login?callback_url=x", as: nil)
            #expect(answer.status == 404)
        }
    }
}
