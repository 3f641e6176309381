// SPDX-License-Identifier: MPL-2.0
public import APIServer
import JSON
public import Postgres
public import Schedules
import Taskcluster

/// Secrets: JSON objects that are stored sealed and given only to those who hold their scope.
public struct SecretsAPI: Sendable {
    private let pool: PostgresPool
    private let directory: DirectoryStore
    private let now: @Sendable () -> Timestamp

    /// Keeps secrets in the tables of the schema `tcl`.
    public init(pool: PostgresPool, directory: DirectoryStore, now: @escaping @Sendable () -> Timestamp) {
        self.pool = pool
        self.directory = directory
        self.now = now
    }

    /// The API over a folder of schemas.
    public func api(schemas: SchemaStore) -> API {
        API(
            service: "secrets",
            title: "Secrets",
            description: "Keeps secrets.",
            schemas: schemas,
            endpoints: [
                endpoint(.put, "set", .scope("secrets:set:<name>"), "Store a secret", input: "v1/secret.json", set),
                endpoint(.get, "get", .scope("secrets:get:<name>"), "Read a secret", output: "v1/secret.json", get),
                endpoint(.delete, "remove", .scope("secrets:set:<name>"), "Remove a secret") { request in
                    let name = request.parameter("name")
                    let author = request.author
                    try await pool.transaction { connection in
                        guard try await connection.execute("delete from tcl.secrets where name = \(name)") > 0 else {
                            return
                        }
                        try await connection.execute(
                            AuditStore.note("secret", name, "deleted", by: author, now: now())
                        )
                    }
                    return .json(.object([:]))
                },
                Endpoint(
                    .get,
                    "/secrets",
                    name: "list",
                    scopes: .scope("secrets:list-secrets"),
                    query: .paging,
                    output: "v1/secret-list.json",
                    category: "Secrets",
                    title: "List secrets",
                    description: "Answers with the names alone.",
                    handler: list
                ),
            ]
        )
    }

    private func endpoint(
        _ method: HTTPMethodName,
        _ name: String,
        _ scopes: ScopeTemplate,
        _ title: String,
        input: String? = nil,
        output: String? = nil,
        _ handler: @escaping Endpoint.Handler
    ) -> Endpoint {
        Endpoint(
            method,
            "/secret/<name*>",
            name: name,
            scopes: scopes,
            parameters: ["name": ParameterRule(pattern: "^[^\\x00]+$") { !$0.isEmpty && !$0.utf8.contains(0) }],
            input: input,
            output: output,
            category: "Secrets",
            title: title,
            description: title,
            payloadInErrors: { _ in .object([:]) },
            handler: handler
        )
    }

    private func set(_ request: APIRequest) async throws -> APIResponse {
        let name = request.parameter("name")
        guard let secret = request.body["secret"], let expires = request.body["expires"]?.string,
            let time = Timestamp(expires)
        else { throw APIError(.inputError, "`secret` and `expires` are required.") }
        let sealed = try directory.keyRing().seal(secret.bytes(), for: name)
        let author = request.author
        try await pool.transaction { connection in
            _ = try await connection.pipeline([
                """
                insert into tcl.secrets (name, sealed, key_id, expires)
                values (\(name), \(sealed.bytes), \(sealed.keyID), \(time))
                on conflict (name) do update set sealed = excluded.sealed, key_id = excluded.key_id,
                    expires = excluded.expires
                """,
                AuditStore.note("secret", name, "updated", by: author, now: now()),
            ])
        }
        return .json(.object([:]))
    }

    private func get(_ request: APIRequest) async throws -> APIResponse {
        let name = request.parameter("name")
        let rows = try await pool.query(
            "select sealed, key_id, expires from tcl.secrets where name = \(name) and expires > \(now())"
        )
        guard let row = rows.first else { throw APIError(.resourceNotFound, "There is no secret of this name.") }
        let sealed = KeyRing.Sealed(keyID: try row.string("key_id"), bytes: try row.bytes("sealed"))
        return .json([
            "secret": try JSONValue(parsing: try directory.keyRing().open(sealed, for: name)),
            "expires": JSONValue(try row.timestamp("expires").iso8601),
        ])
    }

    private func list(_ request: APIRequest) async throws -> APIResponse {
        let page = request.page
        let names = try await pool.query(
            """
            select name from tcl.secrets where name > \(try page.string(0) ?? "") and expires > \(now())
            order by name limit \(page.fetch)
            """
        ).map { try $0.string("name") }
        return .json(page.reply("secrets", names, columns: { [JSONValue($0)] }) { JSONValue($0) })
    }
}
