// SPDX-License-Identifier: MPL-2.0

import Crypto
import JSON
import Postgres

extension StepStore {
    // MARK: - Repeated requests

    /// Names a request by the key its client chose.
    public func requestKey(_ key: String, client: String, method: String, path: String, body: [UInt8]) -> RequestKey {
        let content = Array("\(method) \(path)\n".utf8) + body
        return RequestKey(key: key, client: client, digest: Array(SHA256.hash(data: content)))
    }

    func replay(_ key: RequestKey, _ connection: PostgresConnection) async throws {
        let name = "\(schema) \(key.client) \(key.key)"
        _ = try await connection.query("select pg_advisory_xact_lock(hashtextextended(\(name), 0))")
        let rows = try await connection.query(
            """
            select request_sha256, reply from \(unsafe: schema).replies
            where client = \(key.client) and key = \(key.key) and created > now() - interval '24 hours'
            """
        )
        guard let row = rows.first else { return }
        guard try row.bytes("request_sha256") == key.digest else {
            throw StepProblem(422, "idempotency_key_reused", "This Idempotency-Key belongs to another request")
        }
        throw Replayed(reply: try row.json("reply").object ?? [:])
    }

    func keep(_ key: RequestKey, _ reply: JSONValue, _ connection: PostgresConnection) async throws {
        try await connection.execute(
            """
            insert into \(unsafe: schema).replies (client, key, request_sha256, reply)
            values (\(key.client), \(key.key), \(key.digest), \(reply))
            on conflict (client, key) do update
            set request_sha256 = excluded.request_sha256, reply = excluded.reply, created = now()
            """
        )
    }

    /// Forgets answers that are no longer repeated.
    public func sweepReplies() async throws {
        try await pool.execute(
            """
            delete from \(unsafe: schema).replies where ctid = any(array(
                select ctid from \(unsafe: schema).replies where created < now() - interval '25 hours' limit 1000))
            """
        )
    }
}
