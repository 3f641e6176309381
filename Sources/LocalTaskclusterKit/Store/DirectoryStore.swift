// SPDX-License-Identifier: MPL-2.0
import Crypto
public import JSON
public import Postgres
public import Schedules
import Synchronization
public import Taskcluster

/// What a seed file says: clients and roles that must exist.
public struct Seed: Sendable {
    /// A client to create or bring up to date.
    struct SeedClient: Sendable {
        let clientID: String
        let accessToken: String
        let scopes: [String]
        let description: String
    }

    let clients: [SeedClient]
    let roles: [Role]

    /// Reads `{"clients": […], "roles": […]}`; nil if it is something else.
    public init?(json: JSONValue, now: Timestamp) {
        var clients: [SeedClient] = []
        for entry in json["clients"]?.array ?? [] {
            guard let id = entry["clientId"]?.string, let token = entry["accessToken"]?.string,
                Patterns.clientID.matches(id), Patterns.accessToken.matches(token)
            else { return nil }
            clients.append(
                SeedClient(
                    clientID: id,
                    accessToken: token,
                    scopes: entry["scopes"]?.array?.compactMap(\.string) ?? [],
                    description: entry["description"]?.string ?? ""
                )
            )
        }
        var roles: [Role] = []
        for entry in json["roles"]?.array ?? [] {
            guard let id = entry["roleId"]?.string else { return nil }
            roles.append(
                Role(
                    id: id,
                    scopes: entry["scopes"]?.array?.compactMap(\.string) ?? [],
                    description: entry["description"]?.string ?? "",
                    created: now,
                    lastModified: now
                )
            )
        }
        self.clients = clients
        self.roles = roles
    }
}

/// Clients and roles: stored in PostgreSQL, answered from memory.
///
/// `reload` replaces the snapshot; call it after every change and now and then for the changes of other instances.
public final class DirectoryStore: RequestAuthenticator {
    private struct Snapshot: Sendable {
        var directory = CredentialDirectory(clients: [:], roles: RoleSet([]))
        var roles = RoleSet([])
        var issuer: Hawk.Credentials?
        var key: [UInt8] = []
        var sealingKey: [UInt8] = []
    }

    /// The client that signs the credentials of tasks.
    public static let issuerID = "static/taskcluster/queue"
    /// How long an `Authorization` header may be; certificates with many scopes are long.
    private static let headerLimit = 32 << 10

    private let pool: PostgresPool
    private let now: @Sendable () -> Timestamp
    private let snapshot = Mutex(Snapshot())

    /// Uses the tables of the schema `tcl`; knows nobody until the first `reload`.
    public init(pool: PostgresPool, now: @escaping @Sendable () -> Timestamp) {
        self.pool = pool
        self.now = now
    }

    /// Checks a request against the snapshot.
    public func authenticate(_ request: AuthenticationRequest) async throws -> AuthenticationResult {
        let directory = snapshot.withLock { $0.directory }
        return directory.authenticate(request, now: now())
    }

    /// What scopes come to once roles are taken into account.
    public func expand(_ scopes: [String]) -> [String] {
        snapshot.withLock { $0.roles }.expand(scopes)
    }

    /// The credentials that sign for tasks; nil before the first `reload`.
    public var issuer: Hawk.Credentials? { snapshot.withLock { $0.issuer } }

    /// The key that signs addresses of blobs.
    public var signingKey: [UInt8] { snapshot.withLock { $0.key } }

    /// The key that seals secrets.
    public var sealingKey: [UInt8] { snapshot.withLock { $0.sealingKey } }

    /// Writes the seed, the anonymous role and, at the very first start, the keys.
    public func seed(_ seed: Seed?, anonymous: [String], secretKey: String?) async throws {
        let now = now()
        var statements: [SQL] = []
        // What is configured wins over what was made; what was made survives restarts.
        let fresh = secretKey ?? Slugid.make() + Slugid.make()
        statements.append(
            "insert into tcl.keys (name, value) values ('secret', \(fresh)) on conflict (name) do nothing"
        )
        if let secretKey {
            statements.append("update tcl.keys set value = \(secretKey) where name = 'secret'")
        }
        let everybody = Role(
            id: "anonymous",
            scopes: anonymous,
            description: "What everybody may do.",
            created: now,
            lastModified: now
        )
        for client in seed?.clients ?? [] {
            statements.append(
                """
                insert into tcl.clients (client_id, access_token, description, scopes, expires, created, last_modified,
                    last_date_used, last_rotated)
                values (\(client.clientID), \(client.accessToken), \(client.description), \(client.scopes),
                    \(Timestamp.farFuture), \(now), \(now), \(now), \(now))
                on conflict (client_id) do update set access_token = excluded.access_token,
                    description = excluded.description, scopes = excluded.scopes, disabled = false
                """
            )
        }
        for role in [everybody] + (seed?.roles ?? []) {
            statements.append(
                """
                insert into tcl.roles (role_id, scopes, description, created, last_modified)
                values (\(role.id), \(role.scopes), \(role.description), \(now), \(now))
                on conflict (role_id) do update set scopes = excluded.scopes, description = excluded.description
                """
            )
        }
        _ = try await pool.pipeline(statements)
    }

    /// Reads everything again.
    public func reload() async throws {
        let rows = try await pool.pipeline([
            "select client_id, access_token, scopes, expires, disabled from tcl.clients",
            "select role_id, scopes, description, created, last_modified from tcl.roles",
            "select value from tcl.keys where name = 'secret'",
        ])
        var clients: [String: Client] = [:]
        for row in rows[0] {
            let id = try row.string("client_id")
            clients[id] = Client(
                id: id,
                accessToken: try row.string("access_token"),
                scopes: try row.strings("scopes"),
                expires: try row.timestamp("expires"),
                disabled: try row.bool("disabled")
            )
        }
        let roles = RoleSet(
            try rows[1].map { row in
                Role(
                    id: try row.string("role_id"),
                    scopes: try row.strings("scopes"),
                    description: try row.string("description"),
                    created: try row.timestamp("created"),
                    lastModified: try row.timestamp("last_modified")
                )
            }
        )
        guard let secret = try rows[2].first?.string("value") else { return }
        let token = Base64.urlEncoded(Self.derived("issuer", from: secret))
        clients[Self.issuerID] = Client(id: Self.issuerID, accessToken: token, scopes: ["*"])
        let known = clients
        let directory = CredentialDirectory(clients: known, roles: roles, headerLimit: Self.headerLimit)
        let key = Self.derived("addresses", from: secret)
        let sealingKey = Self.derived("secrets", from: secret)
        snapshot.withLock { snapshot in
            snapshot.directory = directory
            snapshot.roles = roles
            snapshot.issuer = Hawk.Credentials(clientID: Self.issuerID, accessToken: token)
            snapshot.key = key
            snapshot.sealingKey = sealingKey
        }
    }

    /// A key for one purpose, made from the one secret.
    private static func derived(_ purpose: String, from secret: String) -> [UInt8] {
        Array(HMAC<SHA256>.authenticationCode(for: Array(purpose.utf8), using: SymmetricKey(data: Array(secret.utf8))))
    }
}
