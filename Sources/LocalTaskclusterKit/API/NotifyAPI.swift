// SPDX-License-Identifier: MPL-2.0
public import APIServer
import Crypto
import JSON
public import Postgres
public import Schedules
import Taskcluster

/// The part of notify that other services use: mail, kept in a table instead of being sent.
public struct NotifyAPI: Sendable {
    private let pool: PostgresPool
    private let now: @Sendable () -> Timestamp

    /// Keeps mail in the tables of the schema `tcl`.
    public init(pool: PostgresPool, now: @escaping @Sendable () -> Timestamp) {
        self.pool = pool
        self.now = now
    }

    /// The API over a folder of schemas.
    public func api(schemas: SchemaStore) -> API {
        API(
            service: "notify",
            title: "Notify",
            description: "Takes mail and keeps it.",
            schemas: schemas,
            endpoints: [
                Endpoint(
                    .post,
                    "/email",
                    name: "email",
                    scopes: .scope("notify:email:<address>"),
                    authorization: .deferred,
                    input: "v1/email-request.json",
                    category: "Notifications",
                    title: "Send a mail",
                    description: "Keeps the mail; one that repeats a recent one is dropped.",
                    handler: email
                )
            ]
        )
    }

    private func email(_ request: APIRequest) async throws -> APIResponse {
        try await request.authorize(["address": request.body["address"] ?? ""])
        let identity = ["address", "subject", "content", "link", "replyTo"].map { request.body[$0] ?? .null }
        let digest = SHA256.hash(data: JSONValue.array(identity).bytes(.sorted))
        let fingerprint = Base64.urlEncoded(Array(digest))
        // A repetition among the last thousand counts as delivered already.
        let rows = try await pool.query(
            """
            insert into tcl.notifications (kind, fingerprint, body, created)
            select 'email', \(fingerprint)::text, \(request.body)::json, \(now())::timestamptz
            where not exists (
                select from tcl.notifications n where n.fingerprint = \(fingerprint)
                    and n.id > (select coalesce(max(id), 0) - 1000 from tcl.notifications))
            returning id
            """
        )
        return rows.isEmpty ? .empty : .text("OK")
    }
}
