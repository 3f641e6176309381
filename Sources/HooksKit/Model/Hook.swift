// SPDX-License-Identifier: MPL-2.0

package import JSON
package import Schedules

/// One exchange and the routing keys of it that fire a hook.
package struct HookBinding: Sendable, Hashable {
    package let exchange: String
    package let routingKeyPattern: String
    /// A JSON-e expression that a message must satisfy to fire the hook; nil lets every message pass.
    package let filter: String?

    package init(exchange: String, routingKeyPattern: String, filter: String? = nil) {
        self.exchange = exchange
        self.routingKeyPattern = routingKeyPattern
        self.filter = filter
    }

    /// Reads a member of a validated `bindings` list; nil if it has another shape.
    package init?(json: JSONValue) {
        guard let exchange = json["exchange"]?.string, let pattern = json["routingKeyPattern"]?.string else {
            return nil
        }
        self.init(exchange: exchange, routingKeyPattern: pattern, filter: json["filter"]?.string)
    }

    package var json: JSONValue {
        var json: JSONValue = ["exchange": JSONValue(exchange), "routingKeyPattern": JSONValue(routingKeyPattern)]
        if let filter { json["filter"] = JSONValue(filter) }
        return json
    }
}

/// What people define of a hook.
package struct HookDefinition: Sendable, Hashable {
    package let name: HookName
    package let metadata: JSONValue
    package let task: JSONValue
    package let bindings: [HookBinding]
    package let schedule: [String]
    package let triggerSchema: JSONValue
    /// Further members by their names in the API, only those that were given; the original service has none of them.
    package let options: JSONObject

    package init(
        name: HookName,
        metadata: JSONValue,
        task: JSONValue,
        bindings: [HookBinding],
        schedule: [String],
        triggerSchema: JSONValue,
        options: JSONObject = [:]
    ) {
        self.name = name
        self.metadata = metadata
        self.task = task
        self.bindings = bindings
        self.schedule = schedule
        self.triggerSchema = triggerSchema
        self.options = options
    }

    /// The address of the owner.
    package var owner: String { metadata["owner"]?.string ?? "" }

    /// The definition as clients read it.
    package var json: JSONValue {
        var json: JSONObject = [
            "hookGroupId": JSONValue(name.group),
            "hookId": JSONValue(name.hook),
            "metadata": metadata,
            "task": task,
            "bindings": .array(bindings.map(\.json)),
            "schedule": JSONValue(schedule),
            "triggerSchema": triggerSchema,
        ]
        for (key, value) in options { json[key] = value }
        return .object(json)
    }
}

/// A stored hook, without its secrets.
package struct Hook: Sendable {
    package let definition: HookDefinition
    /// When the schedule fires next; far in the future without a schedule.
    package let nextScheduledDate: Timestamp
}
