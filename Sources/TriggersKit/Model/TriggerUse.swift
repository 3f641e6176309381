// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// That a listener has a trigger in its file, and what the trigger has at the broker.
struct TriggerUse: Sendable, Hashable {
    let trigger: String
    /// Empty, like the others, for a trigger that reads no messages.
    var queue = ""
    var exchange = ""
    var routingKey = ""

    /// Something that no listener has had in its file for a while.
    struct Leftover: Sendable {
        let use: TriggerUse
        let seen: Timestamp
        /// How many messages wait in the queue, if the broker said so.
        var messages: Int?

        var json: JSONValue {
            var json: JSONObject = ["name": .string(use.trigger), "seen": .string(seen.iso8601)]
            if !use.queue.isEmpty {
                json["queue"] = .string(use.queue)
                json["exchange"] = .string(use.exchange)
                json["routingKey"] = .string(use.routingKey)
            }
            if let messages { json["messages"] = JSONValue(messages) }
            return .object(json)
        }
    }
}
