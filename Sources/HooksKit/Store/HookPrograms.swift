// SPDX-License-Identifier: MPL-2.0

import JSON
import JSONE
import JSONSchema
package import Postgres
import Synchronization

/// A hook's template and trigger schema, compiled.
struct HookProgram: Sendable {
    let version: Int
    let template: JSONETemplate
    let schema: JSONSchema
}

/// Compiled hooks by version of their definition.
///
/// The version is read from the database for every fire, so a fire never sees an old definition; only unchanged ones
/// save the work of reading and compiling.
package final class HookPrograms: Sendable {
    private let pool: PostgresPool
    private let limit: Int
    private let known = Mutex<[HookName: HookProgram]>([:])

    package init(pool: PostgresPool, limit: Int = 2000) {
        self.pool = pool
        self.limit = limit
    }

    /// The program of a hook as it is defined now, or nil if there is no such hook.
    ///
    /// - Throws: ``FireFailure`` if the definition cannot be compiled.
    func program(of name: HookName, on connection: PostgresConnection? = nil) async throws -> HookProgram? {
        let cached = known.withLock { $0[name] }
        let sql: SQL = """
            select definition_version,
                case when definition_version = \(cached?.version ?? -1) then null else task end as task,
                case when definition_version = \(cached?.version ?? -1) then null else trigger_schema end as schema
            from hooks.hooks where hook_group_id = \(name.group) and hook_id = \(name.hook)
            """
        let rows = if let connection { try await connection.query(sql) } else { try await pool.query(sql) }
        guard let row = rows.first else { return nil }
        guard let task = try row.optionalJSON("task"), let schema = try row.optionalJSON("schema") else {
            return cached
        }
        let version = try row.int("definition_version")
        let program: HookProgram
        do {
            program = HookProgram(
                version: version,
                template: try JSONETemplate(task),
                schema: try HookRules.compile(triggerSchema: schema)
            )
        } catch {
            throw FireFailure(template: "\(error)")
        }
        known.withLock { known in
            if known.count >= limit { known.removeAll() }
            known[name] = program
        }
        return program
    }
}
