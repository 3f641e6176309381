// SPDX-License-Identifier: MPL-2.0

import Postgres
import Schedules
import StepKit

/// The slots of phases and the signatures in them; what is revoked stays.
struct PhaseSignatureStore: Sendable {
    /// Where a signature came from.
    struct Origin: Sendable {
        var address: String?
        var agent: String?
    }

    let pool: PostgresPool

    // MARK: - Reading

    /// The slots of a phase in their order, and all signatures that nobody has taken back.
    func load(
        _ release: Int,
        _ phase: String,
        on connection: PostgresConnection? = nil
    ) async throws -> (slots: [Signoff], signatures: [PhaseSignature]) {
        let slots: SQL = """
            select * from shipit_releases.signoffs where release_id = \(release) and phase = \(phase) order by position
            """
        let revocation = Revocations.last(of: "s.sub", "s.email", since: "s.revocations_seen")
        let signatures: SQL = """
            select id, signoff_uid, sub, email, digest, created, late_at, \(revocation) as revocation
            from shipit_releases.signatures s
            where release_id = \(release) and phase = \(phase) and revoked_at is null order by id
            """
        guard let connection else {
            return (try Self.slots(await pool.query(slots)), try Self.signatures(await pool.query(signatures)))
        }
        return (try Self.slots(await connection.query(slots)), try Self.signatures(await connection.query(signatures)))
    }

    private static func slots(_ rows: [PostgresRow]) throws -> [Signoff] {
        try rows.map { row in
            Signoff(
                uid: try row.string("uid"),
                phase: try row.string("phase"),
                name: try row.string("name"),
                description: try row.string("description"),
                permissions: try row.string("permissions")
            )
        }
    }

    private static func signatures(_ rows: [PostgresRow]) throws -> [PhaseSignature] {
        try rows.map { row in
            PhaseSignature(
                id: try row.int("id"),
                slot: try row.string("signoff_uid"),
                subject: try row.string("sub"),
                email: try row.optionalString("email"),
                digest: try row.optionalBytes("digest"),
                created: try row.timestamp("created"),
                revocation: try row.optionalInt("revocation"),
                late: try row.optionalTimestamp("late_at")
            )
        }
    }

    /// The releases that go on and were signed by people who were revoked since, as far as nobody has written that down.
    func flawed() async throws -> [String] {
        let revocation = Revocations.last(of: "s.sub", "s.email", since: "s.revocations_seen")
        return try await pool.query(
            """
            select distinct r.name from shipit_releases.signatures s
            join shipit_releases.releases r on r.id = s.release_id
            where s.revoked_at is null and s.late_at is null and r.status = 'scheduled' and \(revocation) is not null
            """
        ).map { try $0.string("name") }
    }

    // MARK: - Writing

    func add(
        _ signature: PhaseSignature,
        _ person: Person,
        of release: Int,
        _ phase: String,
        isLax: Bool,
        seen: Int,
        from origin: Origin,
        on connection: PostgresConnection
    ) async throws {
        try await connection.execute(
            """
            insert into shipit_releases.signatures (signoff_uid, release_id, phase, sub, email, digest, revocations_seen,
                lax, amr, auth_time, iss, jti, token_sha256, client_ip, user_agent, created)
            values (\(signature.slot), \(release), \(phase), \(signature.subject), \(signature.email),
                \(signature.digest), \(seen), \(isLax), \(person.methods), \(person.authenticated), \(person.issuer),
                \(person.tokenID), \(person.tokenDigest), \(origin.address), \(origin.agent), \(signature.created))
            """
        )
    }

    /// Takes a signature out of its slot.
    func revoke(
        _ signature: PhaseSignature,
        by actor: String,
        reason: String?,
        at now: Timestamp,
        on connection: PostgresConnection
    ) async throws {
        try await connection.execute(
            """
            update shipit_releases.signatures set revoked_at = \(now), revoked_by = \(actor), revoke_reason = \(reason)
            where signoff_uid = \(signature.slot) and sub = \(signature.subject) and revoked_at is null
            """
        )
    }

    /// Notes that a signature's person was revoked after the phase had been called for.
    func noteLate(_ signature: PhaseSignature, at moment: Timestamp, on connection: PostgresConnection) async throws {
        try await connection.execute(
            "update shipit_releases.signatures set late_at = \(moment) where id = \(signature.id) and late_at is null"
        )
    }
}
