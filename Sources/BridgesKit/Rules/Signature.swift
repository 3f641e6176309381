// SPDX-License-Identifier: MPL-2.0

import Crypto
import Schedules
import Taskcluster

/// Why a delivery is not believed; the text is for its sender and holds no secret and no expected code.
struct SignatureProblem: Error, Equatable, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }

    static let mismatch = SignatureProblem("the signature does not match the body and any secret of this source")

    static func missing(_ header: String) -> SignatureProblem {
        SignatureProblem("the header \(header) is missing, so the delivery is not signed")
    }

    static func malformed(_ header: String) -> SignatureProblem {
        SignatureProblem("the header \(header) does not hold a signature of the expected form")
    }
}

/// Decides whether a delivery comes from its source, by the bytes of its body and what the headers say about them.
///
/// Every secret is tried, always to the end, and codes are compared in a time that does not depend on what differs.
enum Signature {
    /// How far the clock of a sender that signs the time may differ.
    static let tolerance = Duration.seconds(300)

    static func check(
        _ source: WebhookSource,
        header: (String) -> String?,
        body: [UInt8],
        now: Timestamp
    ) throws(SignatureProblem) {
        switch source.kind {
        case .github(let acceptsSHA1):
            try checkGitHub(source.secrets, header, body, acceptsSHA1)
        case .bitbucket:
            try checkHub("X-Hub-Signature", .sha256, "sha256=", source.secrets, header, body)
        case .gitlab:
            if header("webhook-signature") != nil {
                try checkStandard(source.secrets, header, body, now)
            } else {
                try checkToken("X-Gitlab-Token", source.secrets, header)
            }
        case .standard:
            try checkStandard(source.secrets, header, body, now)
        case .hmac(let form):
            guard let text = header(form.header) else { throw .missing(form.header) }
            guard text.hasPrefix(form.prefix), let code = decode(text.dropFirst(form.prefix.utf8.count), form.encoding)
            else { throw .malformed(form.header) }
            try match(code, form.algorithm, source.secrets.map(\.bytes), body)
        }
    }

    // MARK: - Dialects

    private static func checkGitHub(
        _ secrets: [Secret],
        _ header: (String) -> String?,
        _ body: [UInt8],
        _ acceptsSHA1: Bool
    ) throws(SignatureProblem) {
        if header("X-Hub-Signature-256") == nil, header("X-Hub-Signature") != nil {
            guard acceptsSHA1 else {
                throw SignatureProblem(
                    "the delivery is signed with SHA-1 only, which this source does not accept; send X-Hub-Signature-256"
                )
            }
            try checkHub("X-Hub-Signature", .sha1, "sha1=", secrets, header, body)
            return
        }
        try checkHub("X-Hub-Signature-256", .sha256, "sha256=", secrets, header, body)
    }

    private static func checkHub(
        _ name: String,
        _ algorithm: WebhookSource.Description.Algorithm,
        _ prefix: String,
        _ secrets: [Secret],
        _ header: (String) -> String?,
        _ body: [UInt8]
    ) throws(SignatureProblem) {
        guard let text = header(name) else { throw .missing(name) }
        guard text.hasPrefix(prefix), let code = decode(text.dropFirst(prefix.utf8.count), .hex) else {
            throw .malformed(name)
        }
        try match(code, algorithm, secrets.map(\.bytes), body)
    }

    /// A token is as good as a signature only behind TLS; digests are compared, so that not even its length shows.
    private static func checkToken(
        _ name: String,
        _ secrets: [Secret],
        _ header: (String) -> String?
    ) throws(SignatureProblem) {
        guard let token = header(name) else { throw .missing(name) }
        let given = Array(SHA256.hash(data: Array(token.utf8)))
        var isKnown = false
        for secret in secrets where areEqual(given, Array(SHA256.hash(data: secret.bytes))) { isKnown = true }
        guard isKnown else { throw SignatureProblem("the token in \(name) is not one of this source") }
    }

    /// The form of the Standard Webhooks specification: id, time and body are signed, and several codes may be given.
    private static func checkStandard(
        _ secrets: [Secret],
        _ header: (String) -> String?,
        _ body: [UInt8],
        _ now: Timestamp
    ) throws(SignatureProblem) {
        guard let given = header("webhook-signature") else { throw .missing("webhook-signature") }
        guard let id = header("webhook-id") else { throw .missing("webhook-id") }
        guard let time = header("webhook-timestamp") else { throw .missing("webhook-timestamp") }
        guard let seconds = Int64(time), (0...1 << 40).contains(seconds) else { throw .malformed("webhook-timestamp") }
        let codes = given.split(separator: " ").compactMap { entry -> [UInt8]? in
            entry.hasPrefix("v1,") ? decode(entry.dropFirst(3), .base64) : nil
        }
        guard !codes.isEmpty, codes.count <= 8 else { throw .malformed("webhook-signature") }
        let content = Array("\(id).\(time).".utf8) + body
        var isKnown = false
        for secret in secrets {
            let code = code(.sha256, standardKey(secret), content)
            for given in codes where areEqual(given, code) { isKnown = true }
        }
        guard isKnown else { throw .mismatch }
        let distance = now - Timestamp(milliseconds: seconds * 1000)
        guard distance <= tolerance, distance >= .zero - tolerance else {
            throw SignatureProblem("the time in webhook-timestamp is more than five minutes away from ours")
        }
    }

    /// Keys are handed out as `whsec_` and base64; others are taken as they are.
    private static func standardKey(_ secret: Secret) -> [UInt8] {
        let text = String(decoding: secret.bytes, as: UTF8.self)
        guard text.hasPrefix("whsec_"), let key = Base64.decoded(text.dropFirst(6)) else { return secret.bytes }
        return key
    }

    // MARK: - Codes

    private static func match(
        _ given: [UInt8],
        _ algorithm: WebhookSource.Description.Algorithm,
        _ keys: [[UInt8]],
        _ body: [UInt8]
    ) throws(SignatureProblem) {
        var isKnown = false
        for key in keys where areEqual(given, code(algorithm, key, body)) { isKnown = true }
        guard isKnown else { throw .mismatch }
    }

    /// The authentication code of a text.
    static func code(
        _ algorithm: WebhookSource.Description.Algorithm,
        _ key: [UInt8],
        _ text: [UInt8]
    ) -> [UInt8] {
        let key = SymmetricKey(data: key)
        return switch algorithm {
        case .sha1: Array(HMAC<Insecure.SHA1>.authenticationCode(for: text, using: key))
        case .sha256: Array(HMAC<SHA256>.authenticationCode(for: text, using: key))
        case .sha384: Array(HMAC<SHA384>.authenticationCode(for: text, using: key))
        case .sha512: Array(HMAC<SHA512>.authenticationCode(for: text, using: key))
        }
    }

    private static func decode(
        _ text: some StringProtocol,
        _ encoding: WebhookSource.Description.Encoding
    ) -> [UInt8]? {
        guard !text.isEmpty, text.utf8.count <= 200 else { return nil }
        return switch encoding {
        case .hex: Hexadecimal.decode(text)
        case .base64: Base64.decoded(text)
        }
    }

    /// Compares every byte, wherever the first difference is.
    static func areEqual(_ first: [UInt8], _ second: [UInt8]) -> Bool {
        guard first.count == second.count else { return false }
        return zip(first, second).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }
}

/// Bytes as two digits each.
enum Hexadecimal {
    static func encode(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }

    /// The bytes behind digits in either case; nil for anything else.
    static func decode(_ text: some StringProtocol) -> [UInt8]? {
        let digits = Array(text.utf8)
        guard digits.count % 2 == 0 else { return nil }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(digits.count / 2)
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = value(digits[index]), let low = value(digits[index + 1]) else { return nil }
            bytes.append(high << 4 | low)
        }
        return bytes
    }

    static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): digit - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
