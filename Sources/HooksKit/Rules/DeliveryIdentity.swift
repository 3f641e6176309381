// SPDX-License-Identifier: MPL-2.0

import Crypto
import JSON
import Taskcluster

/// How a message is recognised when the broker delivers it a second time.
///
/// AMQP promises delivery at least once and gives a delivery no identity: after a crash or a lost connection the broker
/// sends everything again whose acknowledgement it has not seen, marked only as `redelivered`. Two cases:
///
/// - A message with a `message_id` (all of ours have one) is the same event wherever it turns up, so the fire's key and
///   even the task's id follow from queue and id: however often it arrives, at most one task can come of it.
/// - A message without one is a new event if it is delivered for the first time, whatever it says: two equal messages
///   are two events. Only a *redelivered* one can be a copy, and only of a fire whose acknowledgement may have been lost.
///   Such fires are marked unsettled when they are written, and settled some seconds after the acknowledgement if the
///   connection is still alive. A redelivered message is dropped if it finds an unsettled fire of equal content in its
///   queue; that fire is then settled, so that it excuses one copy only.
enum DeliveryIdentity {
    /// The key under which a message with an identity fires a hook once.
    static func key(name: HookName, messageID: String) -> String {
        "pulse \(name) \(messageID)"
    }

    /// The task of a message with an identity.
    static func taskID(key: String) -> String {
        var bytes = Array(SHA256.hash(data: Array(key.utf8)).prefix(16))
        bytes[0] &= 0x7f
        bytes[6] = bytes[6] & 0x0f | 0x40
        bytes[8] = bytes[8] & 0x3f | 0x80
        return Base64.urlEncoded(bytes)
    }

    /// A digest of all that a message says.
    static func contentHash(exchange: String, routingKey: String, cc: [String], body: [UInt8]) -> String {
        var hash = SHA256()
        for text in [exchange, routingKey] + cc {
            hash.update(data: Array(text.utf8))
            hash.update(data: [0])
        }
        hash.update(data: [1])
        hash.update(data: body)
        return Base64.urlEncoded(Array(hash.finalize()))
    }

    /// A digest of what a caller asked for, to tell a repeated request from another one with the same task id.
    static func requestHash(firedBy: FiredBy, context: JSONObject) -> String {
        let text = firedBy.rawValue + "\n" + JSONValue.object(context).text(.sorted)
        return Base64.urlEncoded(Array(SHA256.hash(data: Array(text.utf8))))
    }
}
