// SPDX-License-Identifier: MPL-2.0

import JSON
import Outbox
import Postgres
import Schedules

/// The webhooks that were accepted.
struct DeliveryStore: Sendable {
    /// What became of a delivery.
    enum Outcome: Equatable {
        /// It is stored and will be published.
        case accepted
        /// It was accepted before.
        case duplicate
        /// Its id was used before, with another body.
        case conflict
    }

    /// A stored delivery as people see it.
    struct Row: Sendable {
        let number: Int
        let delivery: Delivery
        let received: Timestamp
        let replays: Int
    }

    let pool: PostgresPool
    let outbox: Outbox
    let namespace: String

    func exchange(_ source: String) -> String {
        BridgeExchange.name(source, namespace: namespace)
    }

    /// Writes a delivery and its message down together, unless its id is known; the digest is of the request's body.
    func accept(_ delivery: Delivery, digest: [UInt8]) async throws -> Outcome {
        let message = delivery.message(exchange: exchange(delivery.source))
        let outcome = try await pool.transaction { connection -> Outcome in
            let inserted = try await connection.execute(
                """
                insert into bridges.deliveries (source, delivery_id, event, routing_key, envelope, body, digest)
                values (\(delivery.source), \(delivery.deliveryID), \(delivery.event), \(delivery.routingKey),
                    \(jsonText: JSONValue.object(delivery.envelope).bytes()), \(jsonText: delivery.body), \(digest))
                on conflict (source, delivery_id) do nothing
                """
            )
            if inserted == 1 {
                try await outbox.add([message], on: connection)
                return .accepted
            }
            let known = try await connection.query(
                """
                select digest = \(digest) as same from bridges.deliveries
                where source = \(delivery.source) and delivery_id = \(delivery.deliveryID)
                """
            )
            // A row that was swept in between said the same, as far as anybody can tell.
            return try known.first?.bool("same") ?? true ? .duplicate : .conflict
        }
        if outcome == .accepted { outbox.wake() }
        return outcome
    }

    /// Puts the message of a stored delivery into the outbox once more; nil if there is no such delivery.
    func replay(source: String, deliveryID: String) async throws -> Int? {
        let count = try await pool.transaction { connection -> Int? in
            let rows = try await connection.query(
                """
                update bridges.deliveries set replays = replays + 1
                where source = \(source) and delivery_id = \(deliveryID)
                returning \(Self.columns), body
                """
            )
            guard let row = try rows.first.map({ try Self.row($0, body: $0.string("body")) }) else { return nil }
            try await outbox.add(
                [row.delivery.message(exchange: exchange(source), replay: row.replays)],
                on: connection
            )
            return row.replays
        }
        if count != nil { outbox.wake() }
        return count
    }

    /// Deliveries of a source, newest first, without their bodies.
    func list(source: String, before: Int?, limit: Int) async throws -> [Row] {
        let bound: SQL = if let before { "and id < \(before)" } else { "" }
        return try await pool.query(
            """
            select \(Self.columns) from bridges.deliveries where source = \(source) \(bound)
            order by id desc limit \(limit)
            """
        ).map { try Self.row($0, body: "null") }
    }

    /// One delivery with its body.
    func delivery(source: String, deliveryID: String) async throws -> Row? {
        try await pool.query(
            """
            select \(Self.columns), body from bridges.deliveries
            where source = \(source) and delivery_id = \(deliveryID)
            """
        ).first.map { try Self.row($0, body: $0.string("body")) }
    }

    /// Forgets deliveries older than the retention, at most a thousand; answers how many.
    func sweep(retention: Duration) async throws -> Int {
        try await pool.execute(
            """
            delete from bridges.deliveries where id = any(array(
                select id from bridges.deliveries
                where received < now() - \(Int(retention.components.seconds))::bigint * interval '1 second'
                order by received limit 1000))
            """
        )
    }

    private static let columns: SQL = "id, source, delivery_id, event, routing_key, envelope, received, replays"

    private static func row(_ row: PostgresRow, body: String) throws -> Row {
        Row(
            number: try row.int("id"),
            delivery: Delivery(
                source: try row.string("source"),
                deliveryID: try row.string("delivery_id"),
                event: try row.string("event"),
                routingKey: try row.string("routing_key"),
                envelope: try row.json("envelope").object ?? [:],
                body: Array(body.utf8)
            ),
            received: try row.timestamp("received"),
            replays: try row.int("replays")
        )
    }
}
