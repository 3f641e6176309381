// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules
import StepKit

/// The signatures under steps; rows are revoked and never removed.
struct SignatureStore: Sendable {
    /// A signature with its particulars.
    struct Row: Sendable {
        let id: Int
        let stepID: Int
        let signature: Signature
        let claimedGroup: String
        let created: Timestamp
        let revoked: Timestamp?
        let revokedBy: String?
        let revokeReason: String?
        let fields: JSONValue
        let digest: [UInt8]

        /// What is told of it: who, for which group, and when.
        var json: JSONObject {
            var json: JSONObject = [
                "id": JSONValue(id), "sub": .string(signature.subject), "email": .string(signature.email ?? ""),
                "group": .string(claimedGroup), "created": .string(created.iso8601),
                "digest": .string(Hexadecimal.encoded(digest)),
            ]
            if fields.object?.isEmpty == false { json["fields"] = fields }
            if let revoked { json["revoked"] = .string(revoked.iso8601) }
            if let revokedBy { json["revoked_by"] = .string(revokedBy) }
            if let revokeReason { json["revoke_reason"] = .string(revokeReason) }
            return json
        }
    }

    /// Where a signature came from.
    struct Origin: Sendable {
        let address: String?
        let agent: String?
        let fields: JSONObject
    }

    let pool: PostgresPool
    let revocations: Revocations

    init(pool: PostgresPool) {
        self.pool = pool
        revocations = Revocations(pool: pool)
    }

    private static let columns: SQL = """
        id, step_id, sub, email, group_name, is_member, definition_sha256, fields, created, revoked_at, revoked_by,
        revoke_reason
        """

    /// The number of the revocation that a signature's person got since; null for none.
    private static let revocation = Revocations.last(of: "s.sub", "s.email", since: "s.revocations_seen")

    /// The live signatures of a step, oldest first.
    func live(_ stepID: Int, on connection: PostgresConnection) async throws -> [Row] {
        try await connection.query(
            """
            select \(Self.columns) from shipit_signoff.signatures s
            where step_id = \(stepID) and revoked_at is null and \(Self.revocation) is null order by id
            """
        ).map { try Self.row($0) }
    }

    /// The live signatures of several steps.
    func live(_ stepIDs: [Int]) async throws -> [Int: [Row]] {
        let rows = try await pool.query(
            """
            select \(Self.columns) from shipit_signoff.signatures s
            where step_id = any(\(stepIDs)) and revoked_at is null and \(Self.revocation) is null order by id
            """
        ).map { try Self.row($0) }
        return Dictionary(grouping: rows, by: \.stepID)
    }

    /// The signatures of people who were revoked since, which nobody has written down yet.
    func void(_ stepID: Int, on connection: PostgresConnection) async throws -> [(row: Row, revocation: Revocation)] {
        let rows = try await connection.query(
            """
            select \(Self.columns), \(Self.revocation) as revocation from shipit_signoff.signatures s
            where step_id = \(stepID) and revoked_at is null and \(Self.revocation) is not null order by id
            """
        )
        guard !rows.isEmpty else { return [] }
        let numbers = try rows.map { try $0.int("revocation") }
        let known = try await revocations.find(numbers, on: connection)
        var void: [(row: Row, revocation: Revocation)] = []
        for (row, number) in zip(rows, numbers) {
            if let revocation = known[number] { void.append((try Self.row(row), revocation)) }
        }
        return void
    }

    /// All signatures a step ever had, oldest first.
    func all(_ stepID: Int) async throws -> [Row] {
        try await pool.query(
            "select \(Self.columns) from shipit_signoff.signatures where step_id = \(stepID) order by id"
        ).map { try Self.row($0) }
    }

    func add(
        _ signature: Signature,
        group: String,
        of person: Person,
        from origin: Origin,
        seen: Int,
        _ change: StepTransaction
    ) async throws {
        try await change.connection.execute(
            """
            insert into shipit_signoff.signatures (step_id, sub, email, group_name, is_member, definition_sha256, fields,
                amr, auth_time, iss, jti, token_sha256, client_ip, user_agent, created, revocations_seen)
            values (\(change.step.id), \(signature.subject), \(signature.email), \(group), \(signature.group != nil),
                \(change.step.digest), \(JSONValue.object(origin.fields)), \(person.methods), \(person.authenticated),
                \(person.issuer), \(person.tokenID), \(person.tokenDigest), \(origin.address), \(origin.agent),
                \(change.now), \(seen))
            """
        )
    }

    func revoke(_ ids: [Int], by actor: String, reason: String?, _ change: StepTransaction) async throws {
        try await change.connection.execute(
            """
            update shipit_signoff.signatures
            set revoked_at = \(change.now), revoked_by = \(actor), revoke_reason = \(reason)
            where id = any(\(ids)) and revoked_at is null
            """
        )
    }

    /// The names of steps a person has signed, with their states.
    func steps(subject: String?, email: String?) async throws -> [(uid: String, isOpen: Bool)] {
        let condition: SQL =
            if let subject { "g.sub = \(subject)" } else { "g.email = \(email ?? "")" }
        return try await pool.query(
            """
            select distinct s.uid, s.state in ('pending', 'starting', 'running', 'stopping') as is_open
            from shipit_signoff.signatures g join shipit_signoff.steps s on s.id = g.step_id
            where g.revoked_at is null and s.deleted_at is null and \(condition) order by s.uid
            """
        ).map { (try $0.string("uid"), try $0.bool("is_open")) }
    }

    private static func row(_ row: PostgresRow) throws -> Row {
        let group = try row.string("group_name")
        return Row(
            id: try row.int("id"),
            stepID: try row.int("step_id"),
            signature: Signature(
                subject: try row.string("sub"),
                email: try row.optionalString("email"),
                group: try row.bool("is_member") ? group : nil
            ),
            claimedGroup: group,
            created: try row.timestamp("created"),
            revoked: try row.optionalTimestamp("revoked_at"),
            revokedBy: try row.optionalString("revoked_by"),
            revokeReason: try row.optionalString("revoke_reason"),
            fields: try row.json("fields"),
            digest: try row.bytes("definition_sha256")
        )
    }
}
