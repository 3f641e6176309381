// SPDX-License-Identifier: MPL-2.0

import JSON
import Taskcluster

/// A JSON Web Token in its three parts, none of which is believed yet.
struct SignedToken: Sendable {
    /// Longer tokens are refused unread.
    static let limit = 16 << 10

    let header: JSONObject
    let claims: JSONObject
    let algorithm: TokenAlgorithm
    let keyID: String
    /// What was signed.
    let signedBytes: [UInt8]
    let signature: [UInt8]

    /// Takes a token apart and refuses what no honest issuer would send, before any key is looked for.
    ///
    /// The header says which algorithm and key to use and nothing more: a token that brings its own key, or the address of
    /// one, or demands extensions, is refused.
    init(_ text: String, algorithms: Set<TokenAlgorithm>) throws(StepProblem) {
        guard text.utf8.count <= Self.limit else { throw TokenProblem.header("The token is too long") }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 3, let head = Self.object(parts[0]), let claims = Self.object(parts[1]),
            let signature = Self.decoded(parts[2])
        else {
            throw TokenProblem.header("The token is not a signed JSON Web Token")
        }
        let name = head["alg"]?.string ?? "none"
        guard let algorithm = TokenAlgorithm(rawValue: name), algorithms.contains(algorithm) else {
            throw TokenProblem.header("Tokens with this signature algorithm are not accepted")
        }
        if let member = ["crit", "jwk", "jku", "x5u", "x5c"].first(where: { head.contains($0) }) {
            throw TokenProblem.header("Tokens with the header member \(member) are not accepted")
        }
        guard let keyID = head["kid"]?.string, !keyID.isEmpty else {
            throw TokenProblem.header("The token does not name its key")
        }
        header = head
        self.claims = claims
        self.algorithm = algorithm
        self.keyID = keyID
        self.signature = signature
        signedBytes = Array("\(parts[0]).\(parts[1])".utf8)
    }

    /// Whether a text is no JSON Web Token with a signature at all, but something that only its issuer understands.
    ///
    /// Whatever looks like a signed token is taken at its word, and refused if that is not good.
    static func isOpaque(_ text: String) -> Bool {
        guard text.utf8.count <= limit, text.utf8.count(where: { $0 == UInt8(ascii: ".") }) != 2 else { return false }
        return text.utf8.allSatisfy { byte in
            (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                || "-._~+/=".utf8.contains(byte)
        }
    }

    private static func decoded(_ part: Substring) -> [UInt8]? {
        // Padding and the other alphabet are not allowed here.
        guard !part.isEmpty, !part.utf8.contains(where: { "=+/".utf8.contains($0) }) else { return nil }
        return Base64.decoded(part)
    }

    private static func object(_ part: Substring) -> JSONObject? {
        guard let bytes = decoded(part), DuplicateKeys.first(in: bytes) == nil else { return nil }
        return (try? JSONValue(parsing: bytes))?.object
    }
}

/// How a token is signed.
public enum TokenAlgorithm: String, Sendable, Hashable, CaseIterable {
    /// RSA with PKCS 1 padding and SHA-256.
    case rs256 = "RS256"
    /// RSA with PSS padding and SHA-256.
    case ps256 = "PS256"
    /// The elliptic curve P-256 with SHA-256.
    case es256 = "ES256"
}

/// The refusals of tokens.
enum TokenProblem {
    static func refusal(_ code: String, _ text: String) -> StepProblem {
        StepProblem(
            401,
            code,
            text,
            members: ["description": .string(text)],
            headers: ["WWW-Authenticate": "Bearer error=\"invalid_token\""]
        )
    }

    static func header(_ text: String) -> StepProblem { refusal("invalid_header", text) }
    static func claims(_ text: String) -> StepProblem { refusal("invalid_claims", text) }
    static let key = refusal("invalid_key", "The key of the token is not one of its issuer's")
    static let signature = refusal("invalid_signature", "The signature of the token is wrong")
    static let expired = refusal("token_expired", "The token has expired")
    static let opaque = header("The token is not a signed JSON Web Token")
    static let missing = StepProblem(
        401,
        "authorization_header_missing",
        "This needs the token of a person in the Authorization header",
        headers: ["WWW-Authenticate": "Bearer"]
    )
    static let unavailable = StepProblem(
        503,
        "keys_unavailable",
        "The keys of the token's issuer cannot be had",
        headers: ["Retry-After": "30"]
    )
}
