// SPDX-License-Identifier: MPL-2.0

import Core
public import Postgres
public import Pulse

/// Messages that commit together with the change they announce.
///
/// A writer adds messages in the transaction of the change; after the commit it calls `wake`, and an `OutboxRelay` of this
/// or any other process publishes them. A message is published at least once, and only if the change was committed.
///
/// Ids are taken inside the writer's transaction, so messages of one transaction, and of transactions that follow each
/// other, are published in order; two transactions that overlap have no order between them.
public struct Outbox: Sendable {
    /// The schema the table is in.
    public let schema: String

    /// Wakes the relays of this process.
    let signal = Signal()

    /// Names the outbox of a schema, which must be a plain lower-case identifier.
    public init(schema: String) {
        precondition(Self.isPlain(schema), "a schema name consists of a-z, 0-9 and _ and begins with a letter or _")
        self.schema = schema
    }

    /// The statement that creates the table, for the migrations of a kit.
    public static func tableSQL(schema: String) -> String {
        """
        create table \(schema).outbox (
            id bigint generated always as identity primary key,
            exchange text not null,
            routing_key text not null,
            cc text[] not null default '{}',
            body text not null,
            created timestamptz not null default now()
        );
        comment on table \(schema).outbox is 'messages committed with a change and not yet confirmed by the broker';
        """
    }

    /// Adds messages, in order, in the transaction that is open on the connection: with its next statement or its commit.
    ///
    /// Bodies must be UTF-8 text, which JSON is. Throws `invalidArgument` for a message no broker would take.
    public func add(_ messages: [PulseMessage], on connection: PostgresConnection) async throws {
        guard !messages.isEmpty else { return }
        if let problem = messages.lazy.compactMap(\.problem).first { throw problem }
        connection.later([
            """
            insert into \(unsafe: schema).outbox (exchange, routing_key, cc, body)
            select exchange, routing_key, cc::text[], body
            from unnest(\(messages.map(\.exchange))::text[], \(messages.map(\.routingKey))::text[],
                \(lists: messages.map(\.cc))::text[], \(messages.map { String(decoding: $0.body, as: UTF8.self) })::text[])
                with ordinality as message (exchange, routing_key, cc, body, place)
            order by place
            """
        ])
    }

    /// The id under which the message of a row is published, however often.
    ///
    /// The row's moment of creation, in microseconds, tells apart what was row 1 before a database was made anew and
    /// what is row 1 since.
    static func messageID(schema: String, id: Int, moment: Int) -> String {
        "outbox.\(schema).\(String(moment, radix: 36)).\(id)"
    }

    /// Makes the relays of this process look at once; call it after the commit.
    public func wake() {
        signal.notify()
    }

    private static func isPlain(_ name: String) -> Bool {
        guard let first = name.utf8.first, name.utf8.count <= 63 else { return false }
        let isLetter = { (byte: UInt8) in
            byte == UInt8(ascii: "_") || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
        }
        return isLetter(first)
            && name.utf8.allSatisfy { isLetter($0) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    }
}
