// SPDX-License-Identifier: MPL-2.0

public import JSON

/// The hooks service: task templates fired by schedules, messages, webhooks and people.
public struct HooksAPI: Sendable {
    private let client: TaskclusterClient

    init(client: TaskclusterClient) { self.client = client }

    /// The groups that have hooks: `{"groups": […]}`.
    public func listHookGroups() async throws(TaskclusterError) -> JSONValue {
        try await client.call("hooks", "GET", ["hooks"])
    }

    /// The hooks of a group: `{"hooks": […]}`.
    public func listHooks(_ group: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("hooks", "GET", ["hooks", group])
    }

    /// The definition of a hook.
    public func hook(_ group: String, _ hook: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("hooks", "GET", ["hooks", group, hook])
    }

    /// The status of a hook: last fire and next scheduled date.
    public func status(_ group: String, _ hook: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("hooks", "GET", ["hooks", group, hook, "status"])
    }

    /// Creates a hook.
    public func createHook(
        _ group: String,
        _ hook: String,
        _ definition: JSONValue
    ) async throws(TaskclusterError) -> JSONValue {
        try await client.call("hooks", "PUT", ["hooks", group, hook], body: definition)
    }

    /// Replaces the definition of a hook.
    public func updateHook(
        _ group: String,
        _ hook: String,
        _ definition: JSONValue
    ) async throws(TaskclusterError) -> JSONValue {
        try await client.call("hooks", "POST", ["hooks", group, hook], body: definition)
    }

    /// Removes a hook.
    public func removeHook(_ group: String, _ hook: String) async throws(TaskclusterError) {
        _ = try await client.call("hooks", "DELETE", ["hooks", group, hook])
    }

    /// Fires a hook; the answer is the status of its task.
    public func triggerHook(
        _ group: String,
        _ hook: String,
        payload: JSONValue = [:]
    ) async throws(TaskclusterError) -> JSONValue {
        try await client.call("hooks", "POST", ["hooks", group, hook, "trigger"], body: payload)
    }

    /// Fires a hook by its trigger token, without scopes.
    public func triggerHook(
        _ group: String,
        _ hook: String,
        token: String,
        payload: JSONValue = [:]
    ) async throws(TaskclusterError) -> JSONValue {
        try await client.call("hooks", "POST", ["hooks", group, hook, "trigger", token], body: payload)
    }

    /// The trigger token of a hook: `{"token": …}`.
    public func triggerToken(_ group: String, _ hook: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("hooks", "GET", ["hooks", group, hook, "token"])
    }

    /// Replaces the trigger token of a hook.
    public func resetTriggerToken(_ group: String, _ hook: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("hooks", "POST", ["hooks", group, hook, "token"])
    }

    /// The last fires of a hook: `{"lastFires": […]}`.
    public func listLastFires(_ group: String, _ hook: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("hooks", "GET", ["hooks", group, hook, "last-fires"])
    }
}

extension TaskclusterClient {
    /// The hooks service's methods.
    public var hooks: HooksAPI { HooksAPI(client: self) }
}
