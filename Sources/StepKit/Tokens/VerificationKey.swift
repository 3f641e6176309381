// SPDX-License-Identifier: MPL-2.0

import Crypto
import CryptoExtras
import JSON
import Taskcluster

/// A public key of an issuer.
enum VerificationKey: Sendable {
    case rsa(_RSA.Signing.PublicKey)
    case p256(P256.Signing.PublicKey)

    /// Reads a member of a key set; nil for a key that is not for signatures, too short, or of another kind.
    init?(_ json: JSONValue) {
        if let use = json["use"]?.string, use != "sig" { return nil }
        func number(_ name: String) -> [UInt8]? { json[name]?.string.flatMap { Base64.decoded($0) } }
        switch json["kty"]?.string {
        case "RSA":
            // Shorter keys than 2048 bits are refused by the initialiser.
            guard let n = number("n"), let e = number("e"), let key = try? _RSA.Signing.PublicKey(n: n, e: e) else {
                return nil
            }
            self = .rsa(key)
        case "EC":
            guard json["crv"] == "P-256", let x = number("x"), let y = number("y"),
                let key = try? P256.Signing.PublicKey(rawRepresentation: x + y)
            else { return nil }
            self = .p256(key)
        default:
            return nil
        }
    }

    /// Whether the key has made a signature by an algorithm; a key never answers for an algorithm of another kind.
    func verifies(_ signature: [UInt8], of bytes: [UInt8], by algorithm: TokenAlgorithm) -> Bool {
        switch (self, algorithm) {
        case (.rsa(let key), .rs256), (.rsa(let key), .ps256):
            let signature = _RSA.Signing.RSASignature(rawRepresentation: signature)
            let padding: _RSA.Signing.Padding = algorithm == .rs256 ? .insecurePKCS1v1_5 : .PSS
            return key.isValidSignature(signature, for: SHA256.hash(data: bytes), padding: padding)
        case (.p256(let key), .es256):
            guard let signature = try? P256.Signing.ECDSASignature(rawRepresentation: signature) else { return false }
            return key.isValidSignature(signature, for: SHA256.hash(data: bytes))
        default:
            return false
        }
    }
}
