// SPDX-License-Identifier: MPL-2.0

import Crypto
import JSON
import Taskcluster

/// How a message is recognised when the broker delivers it a second time.
///
/// AMQP promises delivery at least once and gives a delivery no identity: after a crash or a lost connection the broker
/// sends everything again whose acknowledgement it has not seen, marked only as `redelivered`.
///
/// A message delivered for the first time is a new event, whatever it says: two equal messages are two events. Only a
/// redelivered one can be a copy, and only of a fire whose acknowledgement may have been lost. Such fires are marked
/// unsettled when they are written, and settled by their process when it still lives some seconds later. A redelivered
/// message is dropped if it finds an unsettled fire of equal content in its queue; that fire is then settled, so that it
/// excuses one copy only. What remains ambiguous are equal messages of which one was written and the other was not, both
/// within the last seconds before a crash; telling those apart takes a message identity from the publisher.
enum DeliveryIdentity {
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
