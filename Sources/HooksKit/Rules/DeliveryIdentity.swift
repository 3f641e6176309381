// SPDX-License-Identifier: MPL-2.0

import Crypto
import JSON
import Taskcluster

/// How a message is recognised when it comes a second time.
///
/// AMQP promises delivery at least once: after a crash or a lost connection the broker sends everything again whose
/// acknowledgement it has not seen, marked only as `redelivered`; and a publisher that did not see the broker's
/// confirm sends its message again, which then looks like a new one.
///
/// **With an id from the publisher**, id and content together identify a message of a hook for as long as its fire is
/// remembered, a day after its end at the least. All copies make one fire, whether the broker or the publisher doubled
/// the message, whatever consumer died when. The content counts as well because ids are only as good as their publisher: a
/// counter that begins anew at each start, or a constant, loses no event that says something else. Two events that share
/// an id and say the same are taken for one; that is what an id means.
///
/// **Without an id** a message delivered for the first time is a new event, whatever it says: two equal messages are two
/// events, and a copy made by the publisher cannot be told from them. Only a redelivered one can be a copy, and only of a
/// fire whose acknowledgement may have been lost. Such fires are marked unsettled when they are written, and settled by
/// their process when it still lives some seconds later. A redelivered message is dropped if it finds an unsettled fire
/// of equal content in its queue; that fire is then settled, so that it excuses one copy only. What remains ambiguous are
/// equal messages of which one was written and the other was not, both within the last seconds before a crash.
enum DeliveryIdentity {
    /// The key that all copies of a message with an id share.
    static func key(messageID: String, contentHash: String, of name: HookName) -> String {
        var hash = SHA256()
        for text in [name.group, name.hook, messageID, contentHash] {
            hash.update(data: Array(text.utf8))
            hash.update(data: [0])
        }
        return "message " + Base64.urlEncoded(Array(hash.finalize()))
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
