// SPDX-License-Identifier: MPL-2.0
import Postgres
import Schedules
public import Taskcluster

extension DirectoryStore {
    /// A role by name.
    public func role(_ roleID: String) async throws -> Role? {
        try await pool.query("select \(unsafe: Self.roleColumns) from tcl.roles where role_id = \(roleID)").first
            .map { try Role(row: $0) }
    }

    /// Roles by name after the given one.
    public func roles(after roleID: String?, limit: Int) async throws -> [Role] {
        try await pool.query(
            """
            select \(unsafe: Self.roleColumns) from tcl.roles where role_id > \(roleID ?? "")
            order by role_id limit \(limit)
            """
        ).map { try Role(row: $0) }
    }

    /// Makes a role, or finds that exactly this role exists already.
    public func createRole(_ role: Role, by author: String) async throws -> Role {
        try await change(Self.allRoles) { rows in
            let roles = try rows.map { try Role(row: $0) }
            if let old = roles.first(where: { $0.id == role.id }) {
                guard old.description == role.description, Set(old.scopes) == Set(role.scopes) else {
                    throw QueueProblem(.conflict, "There is a role \(role.id) already, and it is different.")
                }
                return DirectoryDecision(answer: old)
            }
            try DirectoryRules.check(role, among: roles)
            let insert: SQL = """
                insert into tcl.roles (role_id, scopes, description, created, last_modified)
                values (\(role.id), \(role.scopes), \(role.description), \(role.created), \(role.lastModified))
                """
            return DirectoryDecision(answer: role, statements: [insert] + news(role: role.id, .created, by: author))
        }
    }

    /// Changes a role; `authorize` is shown the scopes that the role did not imply before anything is written.
    public func updateRole(
        _ roleID: String,
        scopes: [String],
        description: String,
        by author: String,
        authorize: @Sendable (_ added: [String]) async throws -> Void
    ) async throws -> Role {
        guard let before = try await role(roleID) else { throw Self.noRole(roleID) }
        try await authorize(DirectoryRules.added(scopes, to: expand(before.scopes)))
        return try await change(Self.allRoles) { rows in
            let roles = try rows.map { try Role(row: $0) }
            guard var role = roles.first(where: { $0.id == roleID }) else { throw Self.noRole(roleID) }
            guard role.scopes == before.scopes else {
                throw QueueProblem(.conflict, "Role \(roleID) was changed at the same time; try again.")
            }
            role.scopes = scopes
            role.description = description
            role.lastModified = now()
            try DirectoryRules.check(role, among: roles)
            let update: SQL = """
                update tcl.roles set scopes = \(scopes), description = \(description),
                    last_modified = \(role.lastModified)
                where role_id = \(roleID)
                """
            return DirectoryDecision(answer: role, statements: [update] + news(role: roleID, .updated, by: author))
        }
    }

    /// Removes a role; one that is not there is fine.
    public func deleteRole(_ roleID: String, by author: String) async throws {
        try await change("select role_id from tcl.roles where role_id = \(roleID)") { rows in
            guard !rows.isEmpty else { return DirectoryDecision(answer: ()) }
            let delete: SQL = "delete from tcl.roles where role_id = \(roleID)"
            return DirectoryDecision(answer: (), statements: [delete] + news(role: roleID, .deleted, by: author))
        }
    }

    private static let allRoles: SQL = "select \(unsafe: roleColumns) from tcl.roles order by role_id"

    private static func noRole(_ roleID: String) -> QueueProblem {
        QueueProblem(.notFound, "There is no role \(roleID).")
    }
}
