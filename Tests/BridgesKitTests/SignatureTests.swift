// SPDX-License-Identifier: MPL-2.0

import Schedules
import Testing

@testable import BridgesKit

struct SignatureTests {
    private static let now = Timestamp(milliseconds: 1_614_265_330_000)
    private static let gitHubSecret = "It's a Secret to Everybody"
    private static let greeting = Array("Hello, World!".utf8)
    private static let question = Array("what do ya want for nothing?".utf8)

    static func source(_ kind: WebhookSource.Kind, _ secrets: String...) -> WebhookSource {
        WebhookSource(
            name: "s",
            kind: kind,
            secrets: secrets.map { Secret($0) },
            bodyLimit: 1000,
            rate: 1,
            burst: 1
        )
    }

    static func description(
        _ algorithm: WebhookSource.Description.Algorithm,
        _ encoding: WebhookSource.Description.Encoding = .hex,
        prefix: String = ""
    ) -> WebhookSource.Description {
        WebhookSource.Description(
            header: "X-Signature",
            algorithm: algorithm,
            encoding: encoding,
            prefix: prefix,
            event: nil,
            identity: .none,
            routingKey: []
        )
    }

    private func problem(
        _ source: WebhookSource,
        _ headers: [String: String],
        _ body: [UInt8],
        now: Timestamp = now
    ) -> SignatureProblem? {
        do throws(SignatureProblem) {
            let fields = Dictionary(uniqueKeysWithValues: headers.map { ($0.key.lowercased(), $0.value) })
            try Signature.check(source, header: { fields[$0.lowercased()] }, body: body, now: now)
            return nil
        } catch {
            return error
        }
    }

    // MARK: - GitHub

    @Test func `GitHub's own example is accepted and everything near it refused`() {
        let code = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        let source = Self.source(.github(acceptsSHA1: false), Self.gitHubSecret)
        #expect(problem(source, ["X-Hub-Signature-256": "sha256=\(code)"], Self.greeting) == nil)
        #expect(problem(source, ["X-Hub-Signature-256": "sha256=\(code.uppercased())"], Self.greeting) == nil)
        #expect(
            problem(source, ["X-Hub-Signature-256": "sha256=\(code)"], Array("Hello, World".utf8)) == .mismatch
        )
        let other = Self.source(.github(acceptsSHA1: false), "It's a Secret to Nobody")
        #expect(problem(other, ["X-Hub-Signature-256": "sha256=\(code)"], Self.greeting) == .mismatch)
        #expect(problem(source, [:], Self.greeting) == .missing("X-Hub-Signature-256"))
        for text in [
            "", code, "sha256=", "sha256=zz", "sha256=\(code)0", "sha1=\(code)", "sha256=\(code), sha256=\(code)",
            "sha256= \(code)", "sha256=" + String(repeating: "0", count: 5000),
        ] {
            #expect(problem(source, ["X-Hub-Signature-256": text], Self.greeting) != nil, "\(text.prefix(80))")
        }
    }

    @Test func `a GitHub delivery with SHA-1 only needs permission`() {
        let header = ["X-Hub-Signature": "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59"]
        let code = "01dc10d0c83e72ed246219cdd91669667fe2ca58"
        #expect(problem(Self.source(.github(acceptsSHA1: true), Self.gitHubSecret), header, Self.greeting) == nil)
        let strict = Self.source(.github(acceptsSHA1: false), Self.gitHubSecret)
        #expect(problem(strict, header, Self.greeting)?.description.contains("SHA-1") == true)
        // A wrong newer signature is not made good by a right older one.
        let lenient = Self.source(.github(acceptsSHA1: true), Self.gitHubSecret)
        let both = header.merging(["X-Hub-Signature-256": "sha256=" + String(repeating: "0", count: 64)]) { $1 }
        #expect(problem(lenient, both, Self.greeting) == .mismatch)
        #expect(problem(lenient, ["X-Hub-Signature": "sha1=\(code)"], Self.greeting) == .mismatch)
    }

    // MARK: - Others

    @Test(arguments: [
        ("sha1", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        ("sha256", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            "sha384",
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"
        ),
        (
            "sha512",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fd"
                + "caeab1a34d4a6b4b636e070a38bce737"
        ),
    ])
    func `generic codes agree with the vectors of RFC 2202 and RFC 4231`(_ name: String, _ code: String) throws {
        let algorithm = try #require(WebhookSource.Description.Algorithm(rawValue: name))
        let source = Self.source(.hmac(Self.description(algorithm)), "Jefe")
        #expect(problem(source, ["X-Signature": code], Self.question) == nil)
        #expect(problem(source, ["X-Signature": String(code.dropLast(2))], Self.question) == .mismatch)
        #expect(problem(source, [:], Self.question) == .missing("X-Signature"))
    }

    @Test func `generic codes may be base64 and have a prefix`() {
        let code = "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM="
        let plain = Self.source(.hmac(Self.description(.sha256, .base64)), "Jefe")
        #expect(problem(plain, ["X-Signature": code], Self.question) == nil)
        let prefixed = Self.source(.hmac(Self.description(.sha256, .base64, prefix: "v0=")), "Jefe")
        #expect(problem(prefixed, ["X-Signature": "v0=" + code], Self.question) == nil)
        #expect(problem(prefixed, ["X-Signature": code], Self.question) == .malformed("X-Signature"))
    }

    @Test func `Bitbucket signs with SHA-256 in the header others use for SHA-1`() {
        let source = Self.source(.bitbucket, "Jefe")
        let code = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        #expect(problem(source, ["X-Hub-Signature": "sha256=\(code)"], Self.question) == nil)
        let old = "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
        #expect(problem(source, ["X-Hub-Signature": old], Self.question) == .malformed("X-Hub-Signature"))
    }

    @Test func `GitLab may send its token or sign`() {
        let source = Self.source(.gitlab, "a-token-of-ours", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        #expect(problem(source, ["X-Gitlab-Token": "a-token-of-ours"], []) == nil)
        for wrong in ["", "a-token-of-our", "a-token-of-ours ", "A-token-of-ours"] {
            #expect(problem(source, ["X-Gitlab-Token": wrong], []) != nil, "\(wrong)")
        }
        #expect(problem(source, Self.standardHeaders, Self.standardBody) == nil)
        // Once a delivery is signed, the signature counts and not the token.
        let forged = Self.standardHeaders.merging(["X-Gitlab-Token": "a-token-of-ours"]) { $1 }
        #expect(problem(source, forged, Self.greeting) == .mismatch)
    }

    private static let standardBody = Array(#"{"test": 2432232314}"#.utf8)
    private static let standardHeaders = [
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ]

    @Test func `Standard Webhooks sign id, time and body`() {
        let source = Self.source(.standard, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        let headers = Self.standardHeaders
        #expect(problem(source, headers, Self.standardBody) == nil)
        let several = ["webhook-signature": "v1a,xx v1,AAAA \(headers["webhook-signature", default: ""])"]
        #expect(problem(source, headers.merging(several) { $1 }, Self.standardBody) == nil)
        for (name, value) in [
            ("webhook-id", "msg_other"), ("webhook-timestamp", "1614265331"), ("webhook-signature", "v1,AAAA"),
        ] {
            #expect(problem(source, headers.merging([name: value]) { $1 }, Self.standardBody) == .mismatch, "\(name)")
        }
        #expect(problem(source, headers.merging(["webhook-timestamp": "soon"]) { $1 }, Self.standardBody) != nil)
        for distance in [Duration.seconds(301), .seconds(-301)] {
            let text = problem(source, headers, Self.standardBody, now: Self.now + distance)?.description
            #expect(text?.contains("webhook-timestamp") == true)
        }
        #expect(problem(source, headers, Self.standardBody, now: Self.now + .seconds(299)) == nil)
    }

    @Test func `every one of several secrets is good`() {
        let code = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        for secrets in [["Jefe", "new"], ["new", "Jefe"], ["a", "Jefe", "b"]] {
            let source = WebhookSource(
                name: "s",
                kind: .hmac(Self.description(.sha256)),
                secrets: secrets.map { Secret($0) },
                bodyLimit: 1000,
                rate: 1,
                burst: 1
            )
            #expect(problem(source, ["X-Signature": code], Self.question) == nil)
        }
    }

    @Test func `comparing looks at every byte and at the length`() {
        #expect(Signature.areEqual([], []))
        #expect(Signature.areEqual([1, 2, 3], [1, 2, 3]))
        for position in 0..<32 {
            var other = [UInt8](repeating: 7, count: 32)
            other[position] ^= 1
            #expect(!Signature.areEqual([UInt8](repeating: 7, count: 32), other))
        }
        #expect(!Signature.areEqual([1, 2], [1, 2, 3]))
    }

    @Test func `a secret shows itself nowhere`() {
        let secret = Secret("very-secret")
        #expect(!"\(secret)".contains("very"))
        #expect(!String(reflecting: secret).contains("118"))
        #expect(!String(reflecting: Self.source(.gitlab, "very-secret")).contains("118"))
    }
}
