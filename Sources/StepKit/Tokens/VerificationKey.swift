// SPDX-License-Identifier: MPL-2.0

import JSON
import JWTKit

/// A public key of an issuer, with what verifies signatures by each algorithm that the key can be used with.
struct VerificationKey: Sendable {
    private let verifiers: [TokenAlgorithm: any JWTAlgorithm]

    /// Reads a member of a key set; nil for a key that is not for signatures, too short, or of another kind.
    init?(_ json: JSONValue) async {
        if let use = json["use"]?.string, use != "sig" { return nil }
        // Sets have members of kinds we do not know: those serve nobody here, and the others all the same.
        guard let key = try? JWK(json: json.text()), let name = key.keyIdentifier else { return nil }
        var verifiers: [TokenAlgorithm: any JWTAlgorithm] = [:]
        for algorithm in TokenAlgorithm.allCases {
            // A collection stays with the first algorithm that a key is used with, so each has a collection of its own.
            // It throws for keys that are too short, and for those of another kind than the algorithm's.
            guard
                let verifier = try? await JWTKeyCollection().add(jwk: key).getKey(for: name, alg: algorithm.rawValue),
                verifier.name == algorithm.rawValue
            else { continue }
            verifiers[algorithm] = verifier
        }
        guard !verifiers.isEmpty else { return nil }
        self.verifiers = verifiers
    }

    /// Whether the key has made a signature by an algorithm; a key never answers for an algorithm of another kind.
    func verifies(_ signature: [UInt8], of bytes: [UInt8], by algorithm: TokenAlgorithm) -> Bool {
        // What cannot be read as a signature at all is a wrong one.
        (try? verifiers[algorithm]?.verify(signature, signs: bytes)) ?? false
    }
}
