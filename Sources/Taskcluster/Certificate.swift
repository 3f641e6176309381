// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// The statement of an issuer that somebody may use some of its scopes for a while.
struct Certificate: Sendable, Hashable {
    var scopes: [String]
    var start: Int64
    var expiry: Int64
    var seed: String
    var issuer: String?
    var signature: String

    static let maximumLifetime: Int64 = 31 * 24 * 3600 * 1000
    static let skew: Int64 = 5 * 60 * 1000

    init(scopes: [String], start: Int64, expiry: Int64, seed: String, issuer: String?) {
        self.scopes = scopes
        self.start = start
        self.expiry = expiry
        self.seed = seed
        self.issuer = issuer
        signature = ""
    }

    /// Reads the `certificate` member of a request's extension; the messages name what is wrong.
    init(_ json: JSONValue, clientID: String) throws(HawkRejection) {
        guard let object = json.object else { throw HawkRejection("ext.certificate must be an object") }
        guard json["version"]?.int == 1 else { throw HawkRejection("ext.certificate.version must be 1") }
        guard let seed = json["seed"]?.string else { throw HawkRejection("ext.certificate.seed must be a string") }
        guard seed.utf8.count == 44 else { throw HawkRejection("ext.certificate.seed must be 44 characters") }
        guard let start = json["start"]?.double else { throw HawkRejection("ext.certificate.start must be a number") }
        guard let expiry = json["expiry"]?.double else {
            throw HawkRejection("ext.certificate.expiry must be a number")
        }
        guard let start = Int64(exactly: start.rounded(.down)), let expiry = Int64(exactly: expiry.rounded(.down))
        else {
            throw HawkRejection("ext.certificate.start and expiry must be milliseconds since 1970")
        }
        guard let list = json["scopes"]?.array else { throw HawkRejection("ext.certificate.scopes must be an array") }
        let scopes = list.compactMap(\.string)
        guard scopes.count == list.count, scopes.allSatisfy(Scope.isValid) else {
            throw HawkRejection("ext.certificate.scopes must be an array of valid scopes")
        }
        if let issuer = object["issuer"] {
            guard let issuer = issuer.string else { throw HawkRejection("ext.certificate.issuer must be a string") }
            guard issuer != clientID else {
                throw HawkRejection("ext.certificate.issuer must differ from the supplied clientId")
            }
            self.issuer = issuer
        } else if object["clientId"] != nil {
            throw HawkRejection("ext.certificate.clientId must only be used with ext.certificate.issuer")
        }
        guard let signature = json["signature"]?.string else {
            throw HawkRejection("ext.certificate.signature must be a string")
        }
        self.scopes = scopes
        self.start = start
        self.expiry = expiry
        self.seed = seed
        self.signature = signature
    }

    /// Checks what depends on the clock.
    func checkValidity(now: Timestamp) throws(HawkRejection) {
        if start > now.milliseconds + Self.skew { throw HawkRejection("ext.certificate.start must be before now") }
        if expiry < now.milliseconds - Self.skew { throw HawkRejection("ext.certificate.expiry must be after now") }
        // Written as a comparison that cannot overflow.
        if start < expiry - Self.maximumLifetime {
            throw HawkRejection("ext.certificate cannot last longer than 31 days")
        }
    }

    /// Whether the issuer's key made the signature.
    func isSigned(clientID: String, key: String) -> Bool {
        let text = signedText(clientID: clientID)
        if Hawk.constantTimeEqual(signature, Base64.encoded(Hawk.hmac(text, key: key))) { return true }
        // The JavaScript client ends the text with a line break when there are no scopes.
        return scopes.isEmpty
            && Hawk.constantTimeEqual(signature, Base64.encoded(Hawk.hmac(text + "\n", key: key)))
    }

    /// The key that holders of this certificate sign with.
    func accessToken(key: String) -> String {
        Base64.urlEncoded(Hawk.hmac(seed, key: key))
    }

    func signedText(clientID: String) -> String {
        var lines = ["version:1"]
        if let issuer { lines += ["clientId:\(clientID)", "issuer:\(issuer)"] }
        lines += ["seed:\(seed)", "start:\(start)", "expiry:\(expiry)", "scopes:"]
        return (lines + scopes).joined(separator: "\n")
    }

    var json: JSONValue {
        var json: JSONValue = [
            "version": 1, "scopes": JSONValue(scopes), "start": JSONValue(Double(start)),
            "expiry": JSONValue(Double(expiry)), "seed": .string(seed), "signature": .string(signature),
        ]
        if let issuer { json["issuer"] = .string(issuer) }
        return json
    }
}
