// SPDX-License-Identifier: MPL-2.0
import Core
import JSON
import Outbox
import Postgres
import Pulse
import Schedules

/// Turns what happened to tasks into the notifications that their routes ask for.
///
/// The notices were written with the events, so none is lost; any number of instances may take them.
struct TaskHerald: Sendable {
    /// How many notices one step handles at most.
    private static let step = 32

    let pool: PostgresPool
    let routes: NotificationRoutes
    let rootURL: String
    /// The exchange for messages that notify publishes.
    let exchange: String
    let outbox: Outbox
    /// Wakes the courier.
    let notified: Signal

    /// Handles some notices; call again while it returns true.
    func announce(now: Timestamp) async throws -> Bool {
        let (hasMore, hasMessages) = try await pool.transaction { connection in
            let rows = try await connection.query(
                """
                select n.id, n.task_id, n.event, n.status, t.routes, t.definition
                from tcl.notices n left join tcl.tasks t on t.task_id = n.task_id
                order by n.id limit \(Self.step) for update of n skip locked
                """
            )
            guard !rows.isEmpty else { return (false, false) }
            var statements: [SQL] = []
            var messages: [PulseMessage] = []
            for row in rows {
                for notification in try notifications(row, now: now) {
                    if notification.kind == .pulse {
                        messages.append(message(notification))
                    } else {
                        statements.append(
                            NotificationStore.insertion(
                                of: notification,
                                deliverable: routes.delivers(notification.kind),
                                now: now
                            )
                        )
                    }
                }
            }
            let ids = try rows.map { try $0.int("id") }
            statements.append("delete from tcl.notices where id = any(\(ids)::bigint[])")
            let wanted = try await allowed(messages, on: connection)
            if !wanted.isEmpty { try await outbox.add(wanted, on: connection) }
            _ = try await connection.pipeline(statements)
            return (rows.count == Self.step, !wanted.isEmpty)
        }
        notified.notify()
        if hasMessages { outbox.wake() }
        return hasMore
    }

    private func notifications(_ row: PostgresRow, now: Timestamp) throws -> [Notification] {
        // The task may have expired since.
        guard let event = TaskEvent(rawValue: try row.string("event")),
            let definition = try row.optionalJSON("definition")
        else { return [] }
        let status = try row.json("status")
        if event == .exception, let reason = status["runs"]?.array?.last?["reasonResolved"]?.string,
            routes.quietReasons.contains(reason)
        {
            return []
        }
        let notices = TaskNotices(
            taskID: try row.string("task_id"),
            task: definition,
            status: status,
            rootURL: rootURL,
            now: now
        )
        return NotificationWish.fulfilled(by: event, routes: try row.strings("routes")).map {
            notices.notification(for: $0, event: event)
        }
    }

    private func message(_ notification: Notification) -> PulseMessage {
        let body: JSONValue = ["version": 1, "message": notification.body["message"] ?? .object([:])]
        return PulseMessage(exchange: exchange, routingKey: "primary.\(notification.address)", payload: body)
    }

    /// Those whose routing keys are not on the deny list.
    private func allowed(_ messages: [PulseMessage], on connection: PostgresConnection) async throws -> [PulseMessage] {
        guard !messages.isEmpty else { return [] }
        let keys = messages.map { String($0.routingKey.dropFirst("primary.".count)) }
        let denied = Set(
            try await connection.query(
                """
                select address from tcl.denylist
                where kind = \(NotificationKind.pulse.rawValue) and address = any(\(keys)::text[])
                """
            ).map { try $0.string("address") }
        )
        return zip(messages, keys).filter { !denied.contains($0.1) }.map(\.0)
    }
}
