// SPDX-License-Identifier: MPL-2.0
import Crypto
public import Schedules

/// Addresses signed for S3-compatible servers: version 4 of the signature, in the query, with the body unsigned.
public struct AWSSignature: Sendable {
    private let accessKeyID: String
    private let secretKey: String
    private let region: String

    /// Signs with a key pair, for a region.
    public init(accessKeyID: String, secretKey: String, region: String) {
        self.accessKeyID = accessKeyID
        self.secretKey = secretKey
        self.region = region
    }

    /// The query of a request that whoever has it may make for so many seconds.
    ///
    /// - Parameters:
    ///   - method: The request method.
    ///   - host: The host as the `Host` header will spell it, with a port that is not the default one.
    ///   - path: The path as it will be sent, percent-encoded already.
    ///   - query: Further query options.
    ///   - headers: Lower-case header names and values that the request must carry.
    ///   - seconds: How long the address works, from `now` on.
    ///   - now: The moment of signing.
    /// - Returns: The query, without a question mark.
    public func query(
        _ method: String,
        host: String,
        path: String,
        query: [String: String] = [:],
        headers: [String: String] = [:],
        seconds: Int,
        now: Timestamp
    ) -> String {
        let moment = Self.basicFormat(now)
        let day = String(moment.prefix(8))
        let scope = "\(day)/\(region)/s3/aws4_request"
        let signed = headers.merging(["host": host]) { given, _ in given }
        let names = signed.keys.sorted()
        var options = query
        options["X-Amz-Algorithm"] = "AWS4-HMAC-SHA256"
        options["X-Amz-Credential"] = "\(accessKeyID)/\(scope)"
        options["X-Amz-Date"] = moment
        options["X-Amz-Expires"] = String(seconds)
        options["X-Amz-SignedHeaders"] = names.joined(separator: ";")
        let encoded = options.map { (PathSegment.encoded($0.key), PathSegment.encoded($0.value)) }.sorted {
            $0.0 < $1.0
        }
        let text = encoded.map { "\($0.0)=\($0.1)" }.joined(separator: "&")
        let lines = names.map { "\($0):\(Self.trimmed(signed[$0] ?? ""))\n" }.joined()
        let canonical = [method, path, text, lines, names.joined(separator: ";"), "UNSIGNED-PAYLOAD"]
            .joined(separator: "\n")
        let digest = Hexadecimal.text(SHA256.hash(data: Array(canonical.utf8)))
        let toSign = "AWS4-HMAC-SHA256\n\(moment)\n\(scope)\n\(digest)"
        return "\(text)&X-Amz-Signature=\(Hexadecimal.text(mac(toSign, key: signingKey(day))))"
    }

    private func signingKey(_ day: String) -> [UInt8] {
        [day, region, "s3", "aws4_request"].reduce(Array("AWS4\(secretKey)".utf8)) { mac($1, key: $0) }
    }

    private func mac(_ text: String, key: [UInt8]) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: Array(text.utf8), using: SymmetricKey(data: key)))
    }

    /// 20240210T123456Z.
    private static func basicFormat(_ time: Timestamp) -> String {
        let digits = time.iso8601.prefix(19).filter { $0 != "-" && $0 != ":" }
        return digits + "Z"
    }

    private static func trimmed(_ value: String) -> String {
        value.split(separator: " ", omittingEmptySubsequences: true).joined(separator: " ")
    }
}
