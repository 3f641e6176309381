// SPDX-License-Identifier: MPL-2.0

import Crypto

/// The names of the broker's queues.
enum QueueName {
    /// What AMQP allows.
    private static let longest = 255

    /// The exchange to which the queues of hooks send what they cannot keep.
    static func deadLetterExchange(namespace: String) -> String { "exchange/\(namespace)/v1/dead-letters" }

    /// The queue of what they sent there; no hook's queue is called so, because those have a slash more.
    static func deadLetters(namespace: String) -> String { "queue/\(namespace)/dead-letters" }

    /// The queue of a hook.
    ///
    /// Identifiers may be far longer than a queue's name; such hooks get a digest, marked by a colon, which no group has.
    static func ofHook(_ name: HookName, namespace: String) -> String {
        let plain = "queue/\(namespace)/\(name)"
        guard plain.utf8.count > longest else { return plain }
        let digits = Array("0123456789abcdef")
        let digest = SHA256.hash(data: Array(name.description.utf8))
            .reduce(into: "") { text, byte in
                text.append(digits[Int(byte >> 4)])
                text.append(digits[Int(byte & 15)])
            }
        return "queue/\(namespace)/sha256:\(digest)"
    }
}
