// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON

/// The body of a request that creates or replaces a hook, after validation by its schema.
struct HookRequest {
    let name: HookName
    let metadata: JSONValue
    let task: JSONValue
    /// Nil when the body does not mention bindings, which means something else to `updateHook` than to `createHook`.
    let bindings: [HookBinding]?
    let schedule: [String]
    let triggerSchema: JSONValue
    /// The members that only this service knows.
    let options: JSONObject

    /// Reads a validated body, and refuses names that contradict the address it was sent to.
    init(_ body: JSONValue, name: HookName) throws(APIError) {
        try Self.check(body["hookGroupId"], equals: name.group, "Hook Group Ids do not match")
        try Self.check(body["hookId"], equals: name.hook, "Hook Ids do not match")
        self.name = name
        metadata = body["metadata"] ?? .null
        task = body["task"] ?? .null
        bindings = body["bindings"]?.array?.compactMap(HookBinding.init(json:))
        schedule = try Self.schedule(body["schedule"] ?? [])
        triggerSchema = body["triggerSchema"] ?? Self.closedSchema
        var options = body.object ?? [:]
        for member in Self.members { options.removeValue(forKey: member) }
        self.options = options
    }

    /// The members that every hooks service knows; the request's schema admits a few more, which are the options.
    private static let members = [
        "hookGroupId", "hookId", "metadata", "task", "bindings", "schedule", "triggerSchema",
    ]

    /// The trigger schema of hooks that do not bring one: nothing but `{}`.
    static let closedSchema: JSONValue = ["type": "object", "additionalProperties": false]

    /// The definition to store, given the bindings that hold when the body mentions none.
    func definition(defaultBindings: [HookBinding]) -> HookDefinition {
        HookDefinition(
            name: name,
            metadata: metadata,
            task: task,
            bindings: bindings ?? defaultBindings,
            schedule: schedule,
            triggerSchema: triggerSchema,
            options: options
        )
    }

    private static func schedule(_ value: JSONValue) throws(APIError) -> [String] {
        if let patterns = value.array?.compactMap(\.string) { return patterns }
        guard let patterns = ScheduleFormat.patterns(value) else {
            throw APIError(.inputError, "The schedule is neither a list of patterns nor of a known format")
        }
        return patterns
    }

    private static func check(_ given: JSONValue?, equals expected: String, _ message: String) throws(APIError) {
        guard let given = given?.string, !given.isEmpty, given != expected else { return }
        throw APIError(.inputError, message)
    }
}
