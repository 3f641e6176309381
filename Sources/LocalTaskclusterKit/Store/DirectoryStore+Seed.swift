// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Schedules

import Postgres
import Taskcluster

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

extension DirectoryStore {
    /// Writes the seed, the anonymous role and, at the very first start, the keys.
    ///
    /// Clients called `static/…` that the seed does not name any more are removed; without a seed nothing is.
    public func seed(_ seed: Seed?, anonymous: [String], secretKey: String?) async throws {
        let now = now()
        // What is configured wins over what was made; what was made survives restarts.
        let fresh = secretKey ?? Slugid.make() + Slugid.make()
        try await pool.transaction { connection in
            var keys: [SQL] = [
                "update tcl.keys set value = (value::bigint + 1)::text where name = 'directory'",
                "insert into tcl.keys (name, value) values ('secret', \(fresh)) on conflict (name) do nothing",
            ]
            if let secretKey { keys.append("update tcl.keys set value = \(secretKey) where name = 'secret'") }
            keys.append("select value from tcl.keys where name = 'secret'")
            let secret = try await connection.pipeline(keys).last?.first?.string("value") ?? fresh
            let ring = try keyRing(secret: secret)
            _ = try await connection.pipeline(try statements(seed, anonymous: anonymous, ring, now: now))
        }
    }

    private func statements(_ seed: Seed?, anonymous: [String], _ ring: KeyRing, now: Timestamp) throws -> [SQL] {
        var statements: [SQL] = []
        for client in seed?.clients ?? [] {
            let sealed = try ring.seal(Array(client.accessToken.utf8), for: Self.place(ofToken: client.clientID))
            statements.append(
                """
                insert into tcl.clients (client_id, access_token, token_key, sealed_token, description, scopes, expires,
                    created, last_modified, last_date_used, last_rotated)
                values (\(client.clientID), '', \(sealed.keyID), \(sealed.bytes), \(client.description),
                    \(client.scopes), \(Timestamp.farFuture), \(now), \(now), \(now), \(now))
                on conflict (client_id) do update set access_token = '', token_key = excluded.token_key,
                    sealed_token = excluded.sealed_token, description = excluded.description,
                    scopes = excluded.scopes, disabled = false
                """
            )
        }
        if let seed {
            statements.append(
                """
                delete from tcl.clients where client_id like 'static/%'
                    and client_id <> all(\(seed.clients.map(\.clientID))::text[])
                """
            )
        }
        let everybody = Role(
            id: "anonymous",
            scopes: anonymous,
            description: "What everybody may do.",
            created: now,
            lastModified: now
        )
        for role in [everybody] + (seed?.roles ?? []) {
            statements.append(
                """
                insert into tcl.roles (role_id, scopes, description, created, last_modified)
                values (\(role.id), \(role.scopes), \(role.description), \(now), \(now))
                on conflict (role_id) do update set scopes = excluded.scopes, description = excluded.description
                """
            )
        }
        return statements
    }
}
