// SPDX-License-Identifier: MPL-2.0

import Crypto

/// Signatures of statements.
enum StatementSignature {
    /// The first of the keys that made the signature.
    static func signer(of message: [UInt8], _ signature: [UInt8], among keys: [ChainPolicy.Key]) -> ChainPolicy.Key? {
        guard signature.count == 64 else { return nil }
        return keys.first { $0.key.isValidSignature(signature, for: message) }
    }

    /// Finds the signer of a task's statement among the keys of the worker implementation that ran it.
    static func check(
        _ message: [UInt8],
        _ signature: [UInt8],
        of task: ChainTask,
        policy: ChainPolicy
    ) throws(ChainProblem) -> String {
        let keys = policy.keys[task.implementation.rawValue] ?? []
        guard let key = signer(of: message, signature, among: keys) else {
            let tried = keys.isEmpty ? "none is configured" : keys.map(\.text).joined(separator: ", ")
            throw ChainProblem(
                "\(task.label): no key of \(task.implementation.rawValue) verifies the statement's signature "
                    + "(\(signature.count) bytes); keys tried: \(tried)"
            )
        }
        return key.text
    }
}
