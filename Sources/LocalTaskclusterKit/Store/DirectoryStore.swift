// SPDX-License-Identifier: MPL-2.0
import Core
import Core
import Crypto
public import JSON
import Logging
public import Postgres
public import Schedules
import Synchronization
public import Taskcluster

/// Clients and roles have not been read from the database yet.
public struct DirectoryNotLoaded: Error, CustomStringConvertible {
    /// One line for logs and health reports.
    public var description: String { "clients and roles have not been read from the database yet" }
}

/// Clients and roles: stored in PostgreSQL, answered from memory.
///
/// A change is committed, this instance's snapshot is replaced before the caller hears of it, and the other instances
/// are notified by the transaction itself.
public final class DirectoryStore: RequestAuthenticator {
    private struct Snapshot: Sendable {
        var version = 0
        var directory = CredentialDirectory(clients: [:], roles: RoleSet([]))
        var roles = RoleSet([])
        var issuer: Hawk.Credentials?
        var key: [UInt8] = []
        var ring: KeyRing?
    }

    /// The client that signs the credentials of tasks.
    public static let issuerID = "static/taskcluster/queue"
    /// Where instances tell each other about changes.
    static let channel = "tcl_directory"
    /// How long an `Authorization` header may be; certificates with many scopes are long.
    private static let headerLimit = 32 << 10

    let pool: PostgresPool
    let now: @Sendable () -> Timestamp
    let messages: AuthMessages
    let messagesAdded: @Sendable () -> Void
    private let cryptoKeys: JSONValue
    private let snapshot = Mutex(Snapshot())
    private let loaded = Signal()
    /// How long a request waits for the first load.
    private static let patience = Duration.seconds(10)
    private let used = Mutex<Set<String>>([])

    /// Uses the tables of the schema `tcl`; knows nobody until the first `reload`.
    ///
    /// - Parameters:
    ///   - pool: Where the connections come from.
    ///   - cryptoKeys: Keys for tokens and secrets beside the one made from the deployment's secret.
    ///   - messages: How messages are named and built.
    ///   - messagesAdded: Told about committed messages.
    ///   - now: The clock.
    public init(
        pool: PostgresPool,
        cryptoKeys: JSONValue = .array([]),
        messages: AuthMessages = AuthMessages(),
        messagesAdded: @escaping @Sendable () -> Void = {},
        now: @escaping @Sendable () -> Timestamp
    ) {
        self.pool = pool
        self.cryptoKeys = cryptoKeys
        self.messages = messages
        self.messagesAdded = messagesAdded
        self.now = now
    }

    /// Throws while nothing has been read yet.
    public func checkLoaded() throws(DirectoryNotLoaded) {
        guard issuer != nil else { throw DirectoryNotLoaded() }
    }

    /// Checks a request against the snapshot; waits for the first one, so that nobody is refused for being early.
    ///
    /// Throws ``DirectoryNotLoaded`` when the database does not answer within ten seconds.
    public func authenticate(_ request: AuthenticationRequest) async throws -> AuthenticationResult {
        let limit = ContinuousClock.now + Self.patience
        while (try? checkLoaded()) == nil {
            guard .now < limit, !Task.isCancelled else { throw DirectoryNotLoaded() }
            _ = await loaded.wait(timeout: .milliseconds(100))
        }
        let directory = snapshot.withLock { $0.directory }
        let result = directory.authenticate(request, now: now())
        if case .success(let clientID, _, _, _) = result { used.withLock { _ = $0.insert(clientID) } }
        return result
    }

    /// What scopes come to once roles are taken into account.
    public func expand(_ scopes: [String]) -> [String] {
        snapshot.withLock { $0.roles }.expand(scopes)
    }

    /// The credentials that sign for tasks; nil before the first `reload`.
    public var issuer: Hawk.Credentials? { snapshot.withLock { $0.issuer } }

    /// The key that signs addresses of blobs.
    public var signingKey: [UInt8] { snapshot.withLock { $0.key } }

    /// The keys for tokens and secrets.
    public func keyRing() throws -> KeyRing {
        guard let ring = snapshot.withLock({ $0.ring }) else {
            throw KeyRing.Failure(description: "the keys have not been read yet")
        }
        return ring
    }

    // MARK: - The snapshot

    /// Reads everything again if another instance has changed something.
    public func reloadIfChanged() async throws {
        let known = snapshot.withLock { $0.version }
        guard try await version() != known else { return }
        try await reload()
    }

    /// Reads everything again.
    public func reload() async throws {
        // The version is read first: what comes with it is at least as new.
        let version = try await version()
        let rows = try await pool.pipeline([
            "select client_id, access_token, token_key, sealed_token, scopes, expires, disabled from tcl.clients",
            "select \(unsafe: Self.roleColumns) from tcl.roles",
            "select value from tcl.keys where name = 'secret'",
        ])
        guard let secret = try rows[2].first?.string("value") else { return }
        let ring = try keyRing(secret: secret)
        var clients: [String: Client] = [:]
        for row in rows[0] {
            let id = try row.string("client_id")
            guard let token = token(row, of: id, ring) else { continue }
            clients[id] = Client(
                id: id,
                accessToken: token,
                scopes: try row.strings("scopes"),
                expires: try row.timestamp("expires"),
                disabled: try row.bool("disabled")
            )
        }
        let roles = RoleSet(try rows[1].map { try Role(row: $0) })
        let token = Base64.urlEncoded(Self.derived("issuer", from: secret))
        clients[Self.issuerID] = Client(id: Self.issuerID, accessToken: token, scopes: ["*"])
        let fresh = Snapshot(
            version: version,
            directory: CredentialDirectory(clients: clients, roles: roles, headerLimit: Self.headerLimit),
            roles: roles,
            issuer: Hawk.Credentials(clientID: Self.issuerID, accessToken: token),
            key: Self.derived("addresses", from: secret),
            ring: ring
        )
        snapshot.withLock { snapshot in
            // A reload that was overtaken must not bring old tokens back.
            if fresh.version >= snapshot.version { snapshot = fresh }
        }
        loaded.notify()
    }

    private func version() async throws -> Int {
        let rows = try await pool.query("select value::bigint as version from tcl.keys where name = 'directory'")
        return try rows.first?.int("version") ?? 0
    }

    private func token(_ row: PostgresRow, of clientID: String, _ ring: KeyRing) -> String? {
        do {
            guard let keyID = try row.optionalString("token_key") else { return try row.string("access_token") }
            let sealed = KeyRing.Sealed(keyID: keyID, bytes: try row.bytes("sealed_token"))
            return String(decoding: try ring.open(sealed, for: Self.place(ofToken: clientID)), as: UTF8.self)
        } catch {
            // One unreadable token must not lock everybody else out.
            Logger.current.error(
                "a client's token cannot be read",
                metadata: ["client": "\(clientID)", "error": "\(error)"]
            )
            return nil
        }
    }

    func keyRing(secret: String) throws -> KeyRing {
        try KeyRing(derived: Self.derived("secrets", from: secret), configured: cryptoKeys)
    }

    static func place(ofToken clientID: String) -> String { "client \(clientID)" }

    /// A key for one purpose, made from the one secret.
    private static func derived(_ purpose: String, from secret: String) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: Array(purpose.utf8), using: SymmetricKey(data: Array(secret.utf8))))
    }

    // MARK: - Housekeeping

    /// Writes down which clients were used, at most every six hours for each.
    public func flushUse() async throws {
        let ids = used.withLock { used in
            defer { used = [] }
            return Array(used)
        }
        guard !ids.isEmpty else { return }
        let now = now()
        try await pool.execute(
            """
            update tcl.clients set last_date_used = \(now) where client_id in (
                select client_id from tcl.clients where client_id = any(\(ids)::text[])
                    and last_date_used < \(now - .seconds(6 * 3600)) order by client_id for update skip locked)
            """
        )
    }

    /// Seals some tokens and secrets again that are readable or sealed with an old key; returns how many.
    public func sealAgain(limit: Int = 50) async throws -> Int {
        let ring = try keyRing()
        return try await pool.transaction { connection in
            let found = try await connection.pipeline([
                """
                select client_id, access_token, token_key, sealed_token from tcl.clients
                where token_key is distinct from \(ring.currentID) order by client_id limit \(limit) for update skip locked
                """,
                """
                select name, sealed, key_id from tcl.secrets where key_id <> \(ring.currentID)
                order by key_id, name limit \(limit) for update skip locked
                """,
            ])
            var statements: [SQL] = []
            for row in found[0] {
                let id = try row.string("client_id")
                guard let token = token(row, of: id, ring) else { continue }
                let sealed = try ring.seal(Array(token.utf8), for: Self.place(ofToken: id))
                statements.append(
                    """
                    update tcl.clients set access_token = '', token_key = \(sealed.keyID), sealed_token = \(sealed.bytes)
                    where client_id = \(id)
                    """
                )
            }
            for row in found[1] {
                let name = try row.string("name")
                let old = KeyRing.Sealed(keyID: try row.string("key_id"), bytes: try row.bytes("sealed"))
                let sealed = try ring.seal(try ring.open(old, for: name), for: name)
                statements.append(
                    "update tcl.secrets set sealed = \(sealed.bytes), key_id = \(sealed.keyID) where name = \(name)"
                )
            }
            if !statements.isEmpty { _ = try await connection.pipeline(statements) }
            return statements.count
        }
    }
}

extension DirectoryStore {
    static let roleColumns = "role_id, scopes, description, created, last_modified"
}

extension Role {
    /// Reads the columns `DirectoryStore.roleColumns`.
    init(row: PostgresRow) throws(PostgresError) {
        self.init(
            id: try row.string("role_id"),
            scopes: try row.strings("scopes"),
            description: try row.string("description"),
            created: try row.timestamp("created"),
            lastModified: try row.timestamp("last_modified")
        )
    }
}
