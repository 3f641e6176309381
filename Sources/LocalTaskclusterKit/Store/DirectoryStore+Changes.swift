// SPDX-License-Identifier: MPL-2.0
import Postgres
public import Schedules
import Taskcluster

/// What a client may be changed to.
public struct ClientChange: Sendable, Hashable {
    /// What it is for.
    public var description: String
    /// When its credentials stop working.
    public var expires: Timestamp
    /// What it is granted; nil leaves that as it is.
    public var scopes: [String]?
    /// Whether it goes away with its expiry; nil leaves that as it is.
    public var deleteOnExpiration: Bool?

    /// Describes a change.
    public init(description: String, expires: Timestamp, scopes: [String]?, deleteOnExpiration: Bool?) {
        self.description = description
        self.expires = expires
        self.scopes = scopes
        self.deleteOnExpiration = deleteOnExpiration
    }
}

/// What a decision about a directory entry comes to: the answer, and the statements that make it true, if any.
struct DirectoryDecision<Answer: Sendable>: Sendable {
    var answer: Answer
    var statements: [SQL] = []
}

// MARK: - Clients

extension DirectoryStore {
    /// A client by name.
    public func client(_ clientID: String) async throws -> ClientRecord? {
        try await pool.query(Self.find(client: clientID)).first.map { try ClientRecord(row: $0) }
    }

    /// Clients by name after the given one.
    public func clients(prefix: String, after clientID: String?, limit: Int) async throws -> [ClientRecord] {
        try await pool.query(
            """
            select \(unsafe: Self.clientColumns) from tcl.clients
            where client_id > \(clientID ?? "") and starts_with(client_id, \(prefix)) order by client_id limit \(limit)
            """
        ).map { try ClientRecord(row: $0) }
    }

    /// Makes a client with a new token, which only the caller ever sees.
    public func createClient(_ record: ClientRecord, by author: String) async throws -> String {
        try DirectoryRules.checkChangeable(record.clientID)
        let token = Slugid.make() + Slugid.make()
        let sealed = try keyRing().seal(Array(token.utf8), for: Self.place(ofToken: record.clientID))
        return try await change(Self.find(client: record.clientID)) { rows in
            guard rows.isEmpty else {
                throw QueueProblem(.conflict, "There is a client \(record.clientID) already.")
            }
            let insert: SQL = """
                insert into tcl.clients (client_id, access_token, token_key, sealed_token, description, scopes, expires,
                    created, last_modified, last_date_used, last_rotated, delete_on_expiration)
                values (\(record.clientID), '', \(sealed.keyID), \(sealed.bytes), \(record.description),
                    \(record.scopes), \(record.expires), \(record.created), \(record.created), \(record.created),
                    \(record.created), \(record.deleteOnExpiration))
                """
            return DirectoryDecision(
                answer: token,
                statements: [insert] + news(client: record.clientID, .created, by: author)
            )
        }
    }

    /// Changes a client; `authorize` is shown the scopes it gains before anything is written.
    public func updateClient(
        _ clientID: String,
        _ wish: ClientChange,
        by author: String,
        authorize: @Sendable (_ added: [String]) async throws -> Void
    ) async throws -> ClientRecord {
        try DirectoryRules.checkChangeable(clientID)
        guard let before = try await client(clientID) else { throw Self.noClient(clientID) }
        try await authorize((wish.scopes ?? []).filter { !before.scopes.contains($0) })
        return try await changeClient(clientID, by: author) { record in
            // Somebody else may have taken scopes away meanwhile: then the check above was too lenient.
            guard record.scopes == before.scopes else {
                throw QueueProblem(.conflict, "Client \(clientID) was changed at the same time; try again.")
            }
            record.description = wish.description
            record.expires = wish.expires
            record.scopes = wish.scopes ?? record.scopes
            record.deleteOnExpiration = wish.deleteOnExpiration ?? record.deleteOnExpiration
        }
    }

    /// Lets a client in, or refuses it from now on.
    public func setDisabled(_ disabled: Bool, client clientID: String, by author: String) async throws -> ClientRecord {
        try DirectoryRules.checkChangeable(clientID)
        return try await changeClient(clientID, by: author) { $0.disabled = disabled }
    }

    /// Gives a client a new token; the old one stops working before this returns.
    public func resetAccessToken(_ clientID: String, by author: String) async throws -> (ClientRecord, token: String) {
        try DirectoryRules.checkChangeable(clientID)
        let token = Slugid.make() + Slugid.make()
        let sealed = try keyRing().seal(Array(token.utf8), for: Self.place(ofToken: clientID))
        let record = try await changeClient(
            clientID,
            by: author,
            more: """
                update tcl.clients set access_token = '', token_key = \(sealed.keyID), sealed_token = \(sealed.bytes)
                where client_id = \(clientID)
                """
        ) { record in
            record.lastRotated = self.now()
        }
        return (record, token)
    }

    /// Removes a client; one that is not there is fine.
    public func deleteClient(_ clientID: String, by author: String) async throws {
        try DirectoryRules.checkChangeable(clientID)
        try await change(Self.find(client: clientID)) { rows in
            guard !rows.isEmpty else { return DirectoryDecision(answer: ()) }
            let delete: SQL = "delete from tcl.clients where client_id = \(clientID)"
            return DirectoryDecision(answer: (), statements: [delete] + news(client: clientID, .deleted, by: author))
        }
    }

    /// Removes some expired clients that asked for it; returns how many.
    public func forgetClients(limit: Int = 100) async throws -> Int {
        let expired = try await pool.query(
            """
            select client_id from tcl.clients where delete_on_expiration and expires < \(now()) order by expires
            limit \(limit)
            """
        ).map { try $0.string("client_id") }
        for clientID in expired { try await deleteClient(clientID, by: Self.issuerID) }
        return expired.count
    }

    private func changeClient(
        _ clientID: String,
        by author: String,
        more: SQL? = nil,
        _ edit: @Sendable (inout ClientRecord) throws -> Void
    ) async throws -> ClientRecord {
        try await change(Self.find(client: clientID)) { rows in
            guard let row = rows.first else { throw Self.noClient(clientID) }
            let before = try ClientRecord(row: row)
            var record = before
            try edit(&record)
            guard more != nil || record != before else { return DirectoryDecision(answer: record) }
            record.lastModified = now()
            let update: SQL = """
                update tcl.clients set description = \(record.description), expires = \(record.expires),
                    scopes = \(record.scopes), delete_on_expiration = \(record.deleteOnExpiration),
                    disabled = \(record.disabled), last_modified = \(record.lastModified),
                    last_rotated = \(record.lastRotated)
                where client_id = \(clientID)
                """
            let statements = [update] + (more.map { [$0] } ?? []) + news(client: clientID, .updated, by: author)
            return DirectoryDecision(answer: record, statements: statements)
        }
    }

    private static func noClient(_ clientID: String) -> QueueProblem {
        QueueProblem(.notFound, "There is no client \(clientID).")
    }

    private static func find(client clientID: String) -> SQL {
        "select \(unsafe: clientColumns) from tcl.clients where client_id = \(clientID)"
    }

    private static let clientColumns = """
        client_id, description, scopes, expires, created, last_modified, last_date_used, last_rotated, \
        delete_on_expiration, disabled
        """
}

// MARK: - Changing

extension DirectoryStore {
    /// Reads, decides and writes under the directory's lock, then replaces the snapshot.
    @discardableResult
    func change<Answer: Sendable>(
        _ reading: SQL,
        _ decide: @Sendable ([PostgresRow]) throws -> DirectoryDecision<Answer>
    ) async throws -> Answer {
        let (answer, isChange) = try await pool.transaction { connection in
            let rows = try await connection.pipeline([
                "select 1 from tcl.keys where name = 'directory' for update", reading,
            ])
            let decision = try decide(rows[1])
            guard !decision.statements.isEmpty else { return (decision.answer, false) }
            _ = try await connection.pipeline(
                decision.statements + [
                    "update tcl.keys set value = (value::bigint + 1)::text where name = 'directory'",
                    "select pg_notify(\(Self.channel), '')",
                ]
            )
            return (decision.answer, true)
        }
        if isChange {
            try await reload()
            messagesAdded()
        }
        return answer
    }

    private func news(client clientID: String, _ event: AuthMessages.Event, by author: String) -> [SQL] {
        [
            QueueStore.announce(messages.client(event, clientID)),
            AuditStore.note("client", clientID, event.rawValue, by: author, now: now()),
        ]
    }

    func news(role roleID: String, _ event: AuthMessages.Event, by author: String) -> [SQL] {
        [
            QueueStore.announce(messages.role(event, roleID)),
            AuditStore.note("role", roleID, event.rawValue, by: author, now: now()),
        ]
    }
}

extension ClientRecord {
    fileprivate init(row: PostgresRow) throws(PostgresError) {
        self.init(
            clientID: try row.string("client_id"),
            description: try row.string("description"),
            scopes: try row.strings("scopes"),
            expires: try row.timestamp("expires"),
            created: try row.timestamp("created"),
            deleteOnExpiration: try row.bool("delete_on_expiration")
        )
        lastModified = try row.timestamp("last_modified")
        lastDateUsed = try row.timestamp("last_date_used")
        lastRotated = try row.timestamp("last_rotated")
        disabled = try row.bool("disabled")
    }
}
