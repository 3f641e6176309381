// SPDX-License-Identifier: MPL-2.0

package import JSON
package import Postgres
package import Schedules

/// Who changed what.
package struct AuditEntry: Sendable, Hashable {
    package var clientID: String
    package var sourceAddress: String?
    /// What was done, such as `job.create`.
    package var verb: String
    /// To what, such as `machine:t-linux64-ms-001`.
    package var object: String
    package var before: JSONValue?
    package var after: JSONValue?
    package var requestID: String?

    package init(
        clientID: String,
        sourceAddress: String?,
        verb: String,
        object: String,
        before: JSONValue? = nil,
        after: JSONValue? = nil,
        requestID: String? = nil
    ) {
        self.clientID = clientID
        self.sourceAddress = sourceAddress
        self.verb = verb
        self.object = object
        self.before = before
        self.after = after
        self.requestID = requestID
    }
}

/// The list of who changed what; nothing in it can be changed or taken away.
package struct AuditStore: Sendable {
    let pool: PostgresPool

    package init(pool: PostgresPool) {
        self.pool = pool
    }

    /// Adds an entry in the transaction of the change; values that could be secrets are masked.
    package static func add(_ entry: AuditEntry, on connection: PostgresConnection) async throws {
        _ = try await connection.execute(statement(entry))
    }

    /// The statement that adds an entry.
    static func statement(_ entry: AuditEntry) -> SQL {
        """
        insert into roller.audit_log (client_id, source_ip, verb, object, before, after, request_id)
        values (\(entry.clientID), \(entry.sourceAddress), \(entry.verb), \(entry.object),
            \(entry.before.map(Mask.masked)), \(entry.after.map(Mask.masked)), \(entry.requestID))
        """
    }

    /// Entries before the given one, newest first; those about one object, or all.
    package func list(
        object: String?,
        before: Int?,
        limit: Int
    ) async throws -> [(id: Int, at: Timestamp, entry: AuditEntry)] {
        try await pool.query(
            """
            select * from roller.audit_log
            where (\(object)::text is null or object = \(object)::text) and (\(before)::bigint is null or id < \(before)::bigint)
            order by id desc limit \(limit)
            """
        ).map { row in
            (
                id: try row.int("id"), at: try row.timestamp("at"),
                entry: AuditEntry(
                    clientID: try row.string("client_id"),
                    sourceAddress: try row.optionalString("source_ip"),
                    verb: try row.string("verb"),
                    object: try row.string("object"),
                    before: try row.optionalJSON("before"),
                    after: try row.optionalJSON("after"),
                    requestID: try row.optionalString("request_id")
                )
            )
        }
    }
}

/// Takes secrets out of documents that people will read.
package enum Mask {
    private static let words = [
        "password", "passwd", "passphrase", "secret", "community", "token", "apikey", "api_key",
    ]

    /// The document with `***` in place of the value of every member whose name smells of a secret.
    package static func masked(_ value: JSONValue) -> JSONValue {
        switch value {
        case .object(let members):
            var masked = JSONObject()
            for (key, member) in members {
                let name = key.lowercased()
                let isSecret = words.contains { name.contains($0) } && !name.hasSuffix("ref")
                masked[key] = isSecret && !member.isNull ? "***" : Self.masked(member)
            }
            return .object(masked)
        case .array(let elements):
            return .array(elements.map(masked))
        case .null, .bool, .number, .string:
            return value
        }
    }
}
