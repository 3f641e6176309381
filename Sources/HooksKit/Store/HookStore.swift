// SPDX-License-Identifier: MPL-2.0

import JSON
package import Outbox
package import Postgres
import Pulse
import Schedules
import Taskcluster

/// The definitions of hooks in PostgreSQL, with everything that must change together with them.
///
/// Each change commits with its audit row and its message to the bus, and wakes schedulers and listeners.
package struct HookStore: Sendable {
    /// The channel that tells schedulers and listeners of changes.
    package static let changes = "hooks_changed"

    package let pool: PostgresPool
    let box: SecretBox
    let outbox: Outbox
    /// The middle part of the names of the exchanges that announce changes.
    let namespace: String

    package init(pool: PostgresPool, box: SecretBox, outbox: Outbox, namespace: String) {
        self.pool = pool
        self.box = box
        self.outbox = outbox
        self.namespace = namespace
    }

    // MARK: - Reading

    /// The groups that hold hooks, sorted.
    func groups() async throws -> [String] {
        try await pool.query(
            "select hook_group_id from hooks.hooks group by hook_group_id order by hook_group_id collate \"C\""
        )
        .map { try $0.string("hook_group_id") }
    }

    /// The hooks of a group, sorted; empty if there is no such group.
    func hooks(in group: String) async throws -> [Hook] {
        try await pool.query(
            Self.selection + "where hook_group_id = \(group) order by hook_id collate \"C\""
        ).map(Hook.init(row:))
    }

    /// A hook, or nil.
    package func hook(_ name: HookName) async throws -> Hook? {
        try await pool.query(
            Self.selection + "where hook_group_id = \(name.group) and hook_id = \(name.hook)"
        ).first.map(Hook.init(row:))
    }

    static let selection: SQL = """
        select hook_group_id, hook_id, metadata, task, bindings, schedule, trigger_schema, options, next_scheduled_date
        from hooks.hooks\u{20}
        """

    // MARK: - Changing

    /// What an attempt to create a hook led to.
    enum Creation: Sendable {
        case created
        /// The same hook exists already; its message goes out again, nothing else changes.
        case repeated
        /// Another hook has the name.
        case conflict
    }

    /// Stores a new hook with a fresh token, unless its name is taken.
    func create(_ definition: HookDefinition, next: FiringPlan.Due, by client: String) async throws -> Creation {
        let name = definition.name
        let token = try box.seal(Slugid.make(), for: name)
        let taskID = try box.seal(Slugid.make(), for: name)
        let creation = try await pool.transaction { connection -> Creation in
            let inserted = try await connection.query(
                """
                insert into hooks.hooks (hook_group_id, hook_id, metadata, task, bindings, schedule, trigger_schema,
                    options, encrypted_trigger_token, encrypted_next_task_id, next_scheduled_date, next_due)
                values (\(name.group), \(name.hook), \(definition.metadata), \(definition.task),
                    \(JSONValue.array(definition.bindings.map(\.json))), \(JSONValue(definition.schedule)),
                    \(definition.triggerSchema), \(JSONValue.object(definition.options)), \(token), \(taskID), \(next.fireAt), \(next.instant))
                on conflict (hook_group_id, hook_id) do nothing
                returning definition_version
                """
            )
            if inserted.isEmpty {
                let stored = try await connection.query(
                    Self.selection + "where hook_group_id = \(name.group) and hook_id = \(name.hook)"
                ).first.map(Hook.init(row:))
                guard let stored, stored.definition == definition else { return .conflict }
                try await announce("hook-created", name, on: connection)
                return .repeated
            }
            try await recordChange("created", name, by: client, on: connection)
            try await announce("hook-created", name, on: connection)
            return .created
        }
        outbox.wake()
        return creation
    }

    /// Replaces a hook by what a function makes of the stored definition, with a new date and task for its schedule.
    ///
    /// Answers nil if there is no such hook. What the function throws leaves the hook as it is.
    func update(
        _ name: HookName,
        by client: String,
        _ change: @Sendable (HookDefinition) throws -> (definition: HookDefinition, next: FiringPlan.Due)
    ) async throws -> HookDefinition? {
        let taskID = try box.seal(Slugid.make(), for: name)
        let definition = try await pool.transaction { connection -> HookDefinition? in
            let stored = try await connection.query(
                Self.selection
                    + "where hook_group_id = \(name.group) and hook_id = \(name.hook) for no key update"
            ).first.map(Hook.init(row:))
            guard let stored else { return nil }
            let (definition, next) = try change(stored.definition)
            _ = try await connection.execute(
                """
                update hooks.hooks set metadata = \(definition.metadata), task = \(definition.task),
                    bindings = \(JSONValue.array(definition.bindings.map(\.json))),
                    schedule = \(JSONValue(definition.schedule)), trigger_schema = \(definition.triggerSchema),
                    options = \(JSONValue.object(definition.options)), encrypted_next_task_id = \(taskID),
                    next_scheduled_date = \(next.fireAt), next_due = \(next.instant), waits_for = null,
                    definition_version = nextval('hooks.definition_version')
                where hook_group_id = \(name.group) and hook_id = \(name.hook)
                """
            )
            try await recordChange("updated", name, by: client, on: connection)
            try await announce("hook-updated", name, on: connection)
            return definition
        }
        outbox.wake()
        return definition
    }

    /// Removes a hook and its history; one that does not exist is announced and recorded just the same.
    func remove(_ name: HookName, by client: String) async throws {
        try await pool.transaction { connection in
            for table in ["hooks", "last_fires", "failure_mails", "fires"] {
                _ = try await connection.execute(
                    """
                    delete from hooks.\(unsafe: table)
                    where hook_group_id = \(name.group) and hook_id = \(name.hook)
                    """
                )
            }
            try await recordChange("deleted", name, by: client, on: connection)
            try await announce("hook-deleted", name, on: connection)
        }
        outbox.wake()
    }

    // MARK: - Tokens

    /// The trigger token of a hook, or nil if there is no such hook.
    func token(of name: HookName) async throws -> String? {
        let row = try await pool.query(
            """
            select encrypted_trigger_token from hooks.hooks
            where hook_group_id = \(name.group) and hook_id = \(name.hook)
            """
        ).first
        return try row.map { try box.open($0.string("encrypted_trigger_token"), for: name) }
    }

    /// Gives a hook a new trigger token, or answers nil if there is no such hook.
    func resetToken(of name: HookName) async throws -> String? {
        let token = Slugid.make()
        let sealed = try box.seal(token, for: name)
        let changed = try await pool.execute(
            """
            update hooks.hooks set encrypted_trigger_token = \(sealed)
            where hook_group_id = \(name.group) and hook_id = \(name.hook)
            """
        )
        return changed == 1 ? token : nil
    }

    // MARK: - Private

    private func recordChange(
        _ action: String,
        _ name: HookName,
        by client: String,
        on connection: PostgresConnection
    ) async throws {
        _ = try await connection.pipeline([
            """
            insert into hooks.audit_history (entity_id, client_id, action)
            values (\(name.description), \(client), \(action))
            """,
            "select pg_notify(\(Self.changes), '')",
        ])
    }

    private func announce(_ exchange: String, _ name: HookName, on connection: PostgresConnection) async throws {
        try await outbox.add([HookExchanges.message(exchange, name, namespace: namespace)], on: connection)
    }
}

extension Hook {
    /// Reads a row with the columns of `HookStore.selection`.
    init(row: PostgresRow) throws {
        definition = HookDefinition(
            name: HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id")),
            metadata: try row.json("metadata"),
            task: try row.json("task"),
            bindings: try row.json("bindings").array?.compactMap(HookBinding.init(json:)) ?? [],
            schedule: try row.json("schedule").array?.compactMap(\.string) ?? [],
            triggerSchema: try row.json("trigger_schema"),
            options: try row.json("options").object ?? [:]
        )
        nextScheduledDate = try row.timestamp("next_scheduled_date")
    }
}
