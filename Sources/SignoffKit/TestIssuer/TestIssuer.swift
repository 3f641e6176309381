// SPDX-License-Identifier: MPL-2.0

import Crypto
import CryptoExtras
public import JSON
public import Schedules
import Synchronization
import Taskcluster

/// An issuer of tokens for development and tests: it vouches for anybody who is in its list, without asking for a password.
///
/// Its tokens and its key set say what it is, and services refuse both outside development.
public final class TestIssuer: Sendable {
    /// The claim that says what the issuer is.
    public static let mark = "urn:slipway:test-issuer"

    private struct Key {
        let name: String
        let key: _RSA.Signing.PrivateKey
    }

    private let keys: Mutex<[Key]>

    /// Makes an issuer with one key.
    public init() throws {
        keys = Mutex([try Self.makeKey()])
    }

    private static func makeKey() throws -> Key {
        Key(
            name: "test-\(UInt64.random(in: 0..<1 << 48))",
            key: try _RSA.Signing.PrivateKey(keySize: .bits2048)
        )
    }

    /// Replaces the key; tokens of the old one are worth nothing from now on.
    public func rotate() throws {
        let fresh = try Self.makeKey()
        keys.withLock { $0 = [fresh] }
    }

    /// The name of the key in use.
    public var keyID: String { keys.withLock { $0.last?.name ?? "" } }

    /// The public part of the key in use, as text.
    public var publicKeyText: String { keys.withLock { $0.last?.key.publicKey.pemRepresentation ?? "" } }

    /// The key set as it is published.
    public func keySet() throws -> JSONValue {
        let keys = keys.withLock { $0 }
        return [
            Self.mark: true,
            "keys": .array(
                try keys.map { key in
                    let parts = try key.key.publicKey.getKeyPrimitives()
                    return [
                        "kty": "RSA", "use": "sig", "alg": "RS256", "kid": .string(key.name),
                        "n": .string(Base64.urlEncoded(Array(parts.modulus))),
                        "e": .string(Base64.urlEncoded(Array(parts.publicExponent))),
                    ]
                }
            ),
        ]
    }

    /// Signs claims as they are; with `header`, members of the header are replaced.
    public func token(_ claims: JSONObject, header: JSONObject = [:]) throws -> String {
        guard let key = keys.withLock({ $0.last }) else { return "" }
        var head: JSONObject = ["alg": "RS256", "typ": "JWT", "kid": .string(key.name)]
        for (name, value) in header { head[name] = value.isNull ? nil : value }
        let text =
            Base64.urlEncoded(JSONValue.object(head).bytes()) + "."
            + Base64.urlEncoded(JSONValue.object(claims).bytes())
        let signature = try key.key.signature(
            for: SHA256.hash(data: Array(text.utf8)),
            padding: .insecurePKCS1v1_5
        )
        return text + "." + Base64.urlEncoded(Array(signature.rawRepresentation))
    }
}

/// Somebody whom the issuer for tests vouches for.
public struct TestUser: Sendable, Hashable {
    /// The name of the account, which becomes the subject.
    public let name: String
    /// What the token says beside the usual.
    public let claims: JSONObject

    /// Reads an entry of the users file: `{"groups": […], "email": …, "amr": […]}`.
    public init(_ name: String, _ entry: JSONObject) {
        self.name = name
        var claims: JSONObject = [
            "sub": .string("ad|test|\(name)"), "email": entry["email"] ?? .string("\(name)@example.com"),
            "email_verified": true, "groups": entry["groups"] ?? [],
            "https://sso.mozilla.com/claim/groups": entry["groups"] ?? [], "amr": entry["amr"] ?? ["pwd", "mfa"],
        ]
        claims["gty"] = entry["gty"]
        self.claims = claims
    }

    /// The claims of a token for this user.
    public func claims(
        issuer: String,
        audience: String,
        now: Timestamp,
        lifetime: Int = 3600
    ) -> JSONObject {
        let seconds = Int(now.milliseconds / 1000)
        var all = claims
        all["iss"] = .string(issuer)
        all["aud"] = .string(audience)
        all["iat"] = JSONValue(seconds)
        all["auth_time"] = JSONValue(seconds)
        all["exp"] = JSONValue(seconds + lifetime)
        all["jti"] = .string(Slugid.make())
        all[TestIssuer.mark] = true
        return all
    }
}
