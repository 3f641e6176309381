// SPDX-License-Identifier: MPL-2.0

import WorkerKit

/// Signing and checking single files.
public enum SignatureTools {
    /// The text of the public key that made a signature: the one in a file is tried first, then the configured ones.
    public static func matchingKey(_ path: String, signature: String, publicKeyPath: String?) throws -> String {
        let message: [UInt8]
        let signatureBytes: [UInt8]
        do {
            message = try FileText.bytes(path)
            signatureBytes = try FileText.bytes(signature)
        } catch {
            throw SigningKey.Problem(description: "\(error)")
        }
        var keys: [ChainPolicy.Key] = []
        if let publicKeyPath {
            guard let text = try? FileText.read(publicKeyPath), let key = ChainPolicy.Key(text) else {
                throw SigningKey.Problem(description: "\(publicKeyPath) does not hold a public key")
            }
            keys.append(key)
        }
        let standard = ConfigurationKey.all.first { $0.name == "ed25519_public_keys" }?.standard.object ?? [:]
        for (_, texts) in standard {
            keys += (texts.array ?? []).compactMap { $0.string.flatMap(ChainPolicy.Key.init) }
        }
        guard let key = StatementSignature.signer(of: message, signatureBytes, among: keys) else {
            throw SigningKey.Problem(description: "no key verifies \(signature) for \(path)")
        }
        return key.text
    }

    /// Signs a file with a private key file, writing the signature beside it; returns its path.
    public static func sign(_ path: String, keyPath: String) throws -> String {
        let key = try SigningKey(path: keyPath)
        try FileText.write(key.signature(of: FileText.bytes(path)), to: "\(path).sig")
        return "\(path).sig"
    }
}
