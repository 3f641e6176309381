// SPDX-License-Identifier: MPL-2.0

package import Core
import Expressions
package import JSON
package import JSONSchema
package import Schedules

/// A definition that breaks a rule, in words for its author.
package struct InvalidHook: Error, Sendable {
    package let message: String
}

/// What a definition must satisfy beyond its schema.
package struct HookRules: Sendable {
    /// What keeps hooks from listening to an exchange.
    private let denials: [RegularExpression]
    /// Where the rules of time zones come from.
    let zones: TimeZoneFiles

    /// Exchanges that would make a hook fire because of what it did itself, without end.
    package static let defaultDenied = [
        "exchange/taskcluster-queue/v1/task-created",
        "exchange/taskcluster-hooks/.*",
    ]

    /// What must be denied whatever else is: the announcements of fires, which a hook that heard them would make again.
    package static func alwaysDenied(namespace: String) -> [String] {
        ["exchange/\(RegularExpression.escaped(namespace))/v1/hook-(fired|failed)$"]
    }

    /// Makes the rules from regular expressions of denied exchanges, which must match from the exchange's first character.
    package init(
        deniedExchanges: [String] = HookRules.defaultDenied,
        zones: TimeZoneFiles = .system
    ) throws {
        self.zones = zones
        denials = try deniedExchanges.map { try RegularExpression($0, as: .ecmaScript) }
    }

    // MARK: - Trigger schema

    /// Refuses a trigger schema that could not validate anything.
    package func checkTriggerSchema(_ schema: JSONValue) throws(InvalidHook) {
        if let draft = schema["$schema"] {
            guard let uri = draft.string, Self.knowsDraft(uri) else {
                throw Self.invalidSchema([" * Property $schema must be the address of JSON Schema draft 4, 6 or 7"])
            }
        }
        let problems = JSONSchema.problems(inSchema: schema)
        guard problems.isEmpty else {
            throw Self.invalidSchema(problems.map { " * Property \($0.described(root: "triggerSchema"))" })
        }
        do {
            _ = try Self.compile(triggerSchema: schema)
        } catch {
            throw Self.invalidSchema([" * Property triggerSchema must be usable: \(error)"])
        }
    }

    /// Makes the validator of a trigger schema; unknown keywords and formats mean nothing.
    package static func compile(triggerSchema: JSONValue) throws(JSONSchemaError) -> JSONSchema {
        try JSONSchema(triggerSchema, unknownKeywords: .ignore)
    }

    private static func knowsDraft(_ uri: String) -> Bool {
        var text = uri[...]
        for prefix in ["http://", "https://"] where text.hasPrefix(prefix) { text = text.dropFirst(prefix.count) }
        if text.hasSuffix("#") { text = text.dropLast() }
        return ["04", "06", "07"].contains { text == "json-schema.org/draft-\($0)/schema" }
    }

    private static func invalidSchema(_ lines: [String]) -> InvalidHook {
        InvalidHook(message: (["triggerSchema is not a valid JSON schema:"] + lines).joined(separator: "\n"))
    }

    // MARK: - Bindings

    /// Refuses bindings to exchanges that hooks must not listen to.
    package func checkBindings(_ bindings: [HookBinding]) throws(InvalidHook) {
        let denied = bindings.filter { binding in
            // What takes too long to tell is denied.
            denials.contains { (try? $0.matches(binding.exchange, at: .start)) != false }
        }
        for binding in bindings {
            guard let problem = binding.filter.flatMap(BindingRule.problem(inFilter:)) else { continue }
            throw InvalidHook(message: "The filter of the binding to \(binding.exchange) is unusable: \(problem)")
        }
        guard !denied.isEmpty else { return }
        let list = JSONValue.array(denied.map(\.json)).text(.pretty)
        throw InvalidHook(message: "One or more of the bindings are denied access to hooks: \(list)")
    }

    /// Applies all rules in the order clients know, and yields the first instant of the schedule.
    package func check(_ definition: HookDefinition, scheduleFirst: Bool, now: Timestamp) throws(InvalidHook)
        -> FiringPlan.Due
    {
        if scheduleFirst {
            let next = try firstDue(of: definition, after: now)
            try checkTriggerSchema(definition.triggerSchema)
            try checkBindings(definition.bindings)
            return next
        }
        try checkTriggerSchema(definition.triggerSchema)
        let next = try firstDue(of: definition, after: now)
        try checkBindings(definition.bindings)
        return next
    }
}
