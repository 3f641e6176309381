// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres

extension InventoryStore {
    /// What looks wrong in the inventory, and with the credentials that it names.
    func lint(_ credentials: CredentialStore) async throws -> (problems: [InventoryProblem], warnings: [String]) {
        let (machines, controllers) = try await pool.transaction(.repeatableRead) { connection in
            (try await Self.machineDocuments(on: connection), try await Self.controllerDocuments(on: connection))
        }
        var (problems, warnings) = InventoryRules.lint(
            machines: machines,
            changed: Set(machines.keys),
            rows: [:],
            controllers: controllers
        )
        var uses: [String: [String]] = [:]
        for (name, controller) in controllers {
            if let reference = controller["credential_ref"]?.string { uses[reference, default: []].append(name) }
        }
        for (reference, names) in uses.sorted(by: { $0.key < $1.key }) {
            for problem in credentials.problems(with: reference) {
                warnings.append("\(names.sorted().joined(separator: ", ")): \(problem)")
            }
        }
        problems.sort { ($0.field, $0.message) < ($1.field, $1.message) }
        return (problems, warnings)
    }

    /// The controllers that name a credential, by its name.
    func credentialUses() async throws -> [String: [String]] {
        let rows = try await pool.query(
            """
            select credential_ref, json_agg(name order by name) as names from roller.controllers
            where credential_ref is not null group by credential_ref
            """
        )
        var uses: [String: [String]] = [:]
        for row in rows {
            uses[try row.string("credential_ref")] = try row.json("names").array?.compactMap(\.string) ?? []
        }
        return uses
    }

    /// Stores a credential and writes down who did; the names of its members are all that anybody can read there.
    func saveCredential(
        _ credential: Credential,
        as name: String,
        in store: CredentialStore,
        _ options: InventoryImport
    ) async throws {
        let after: JSONValue = ["members": JSONValue(credential.json.object?.keys.sorted() ?? [])]
        try await pool.transaction { connection in
            try await Self.note(name, in: store, after, options, on: connection)
            // Last, so that nothing is stored of which nobody knows.
            try store.save(credential, as: name)
        }
    }

    /// Removes a credential that no controller needs; answers whether there was one, or who needs it.
    func removeCredential(
        _ name: String,
        from store: CredentialStore,
        _ options: InventoryImport
    ) async throws -> (existed: Bool, users: [String]) {
        try await pool.transaction { connection in
            // Nobody gives it to a controller meanwhile.
            try await connection.execute("lock table roller.controllers in share mode")
            let rows = try await connection.query(
                "select name from roller.controllers where credential_ref = \(name) order by name"
            )
            let users = try rows.map { try $0.string("name") }
            guard users.isEmpty else { return (true, users) }
            try await Self.note(name, in: store, .null, options, on: connection)
            return (try store.remove(name), [])
        }
    }

    private static func note(
        _ name: String,
        in store: CredentialStore,
        _ after: JSONValue,
        _ options: InventoryImport,
        on connection: PostgresConnection
    ) async throws {
        try await AuditStore.add(
            AuditEntry(
                clientID: options.clientID,
                sourceAddress: options.sourceAddress,
                verb: options.verb,
                object: "credential:\(name)",
                before: ["existed": JSONValue(store.contains(name))],
                after: after,
                requestID: options.requestID
            ),
            on: connection
        )
    }
}
