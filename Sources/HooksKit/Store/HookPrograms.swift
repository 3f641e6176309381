// SPDX-License-Identifier: MPL-2.0

import JSON
import JSONSchema
package import Postgres
import Synchronization

/// A hook's template and trigger schema, compiled.
struct HookProgram: Sendable {
    let version: Int
    let template: HookTemplate
    let schema: JSONSchema
}

/// Compiled hooks by version of their definition.
///
/// The version is read from the database for every fire, so a fire never sees an old definition; only unchanged ones
/// save the work of reading and compiling. A program that nobody asked for while as many others were compiled as the
/// limit allows is forgotten.
package final class HookPrograms: Sendable {
    /// Two generations: a program that is used moves to the young one, and the old one is dropped as a whole.
    private struct Known {
        var young: [HookName: HookProgram] = [:]
        var old: [HookName: HookProgram] = [:]

        mutating func program(of name: HookName, limit: Int) -> HookProgram? {
            if let program = young[name] { return program }
            guard let program = old[name] else { return nil }
            keep(program, for: name, limit: limit)
            return program
        }

        mutating func keep(_ program: HookProgram, for name: HookName, limit: Int) {
            if young.count >= limit {
                old = young
                young = [:]
            }
            young[name] = program
        }
    }

    private let pool: PostgresPool
    private let limit: Int
    private let known = Mutex(Known())

    /// Makes a cache of at most `limit` programs.
    package init(pool: PostgresPool, limit: Int = 2000) {
        self.pool = pool
        self.limit = max(limit / 2, 1)
    }

    /// The program of a hook as it was defined when it was last asked for, if that is remembered.
    func known(_ name: HookName) -> HookProgram? {
        known.withLock { $0.program(of: name, limit: limit) }
    }

    /// The program of a hook as it is defined now, or nil if there is no such hook.
    ///
    /// - Throws: ``FireFailure`` if the definition cannot be compiled.
    func program(of name: HookName, on connection: PostgresConnection? = nil) async throws -> HookProgram? {
        let cached = known(name)
        let version = cached?.version ?? -1
        let sql: SQL = """
            select definition_version,
                case when definition_version = \(version) then null else task end as task,
                case when definition_version = \(version) then null else trigger_schema end as schema,
                case when definition_version = \(version) then null else options end as options
            from hooks.hooks where hook_group_id = \(name.group) and hook_id = \(name.hook)
            """
        let rows = if let connection { try await connection.query(sql) } else { try await pool.query(sql) }
        guard let row = rows.first else { return nil }
        guard let task = try row.optionalJSON("task"), let schema = try row.optionalJSON("schema") else {
            return cached
        }
        let options = try row.optionalJSON("options")?.object ?? [:]
        let program = try Self.compile(
            task,
            TemplateLanguage(options: options),
            schema,
            version: try row.int("definition_version")
        )
        known.withLock { $0.keep(program, for: name, limit: limit) }
        return program
    }

    /// The programs of several hooks in the versions that the caller has just read, with one query for those not known.
    ///
    /// Hooks that are gone are left out.
    func programs(
        of hooks: [(name: HookName, version: Int)],
        on connection: PostgresConnection
    ) async throws -> [HookName: Result<HookProgram, FireFailure>] {
        var programs: [HookName: Result<HookProgram, FireFailure>] = [:]
        let unknown = known.withLock { known in
            hooks.filter { hook in
                guard let program = known.program(of: hook.name, limit: limit), program.version == hook.version else {
                    return true
                }
                programs[hook.name] = .success(program)
                return false
            }
        }
        guard !unknown.isEmpty else { return programs }
        let rows = try await connection.query(
            """
            select h.hook_group_id, h.hook_id, definition_version, task, trigger_schema as schema, options
            from hooks.hooks h join unnest(\(unknown.map(\.name.group))::text[], \(unknown.map(\.name.hook))::text[])
                as wanted (hook_group_id, hook_id) using (hook_group_id, hook_id)
            """
        )
        for row in rows {
            let name = HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id"))
            let (task, schema, options) = (try row.json("task"), try row.json("schema"), try row.json("options"))
            let version = try row.int("definition_version")
            do throws(FireFailure) {
                let language = TemplateLanguage(options: options.object ?? [:])
                let program = try Self.compile(task, language, schema, version: version)
                known.withLock { $0.keep(program, for: name, limit: limit) }
                programs[name] = .success(program)
            } catch {
                programs[name] = .failure(error)
            }
        }
        return programs
    }

    /// Compiles a definition.
    static func compile(
        _ task: JSONValue,
        _ language: TemplateLanguage,
        _ schema: JSONValue,
        version: Int
    ) throws(FireFailure) -> HookProgram {
        let validator: JSONSchema
        do { validator = try HookRules.compile(triggerSchema: schema) } catch {
            throw FireFailure(template: "\(error)")
        }
        return HookProgram(
            version: version,
            template: try HookTemplate(task, language: language),
            schema: validator
        )
    }
}
