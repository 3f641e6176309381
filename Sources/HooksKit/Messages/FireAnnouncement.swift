// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules

/// What the bus is told when a fire ended: `hook-fired` when its task exists, `hook-failed` when there will be none.
///
/// The bus is open to everybody, so a failure is announced by its kind alone; the history has the error itself and asks
/// for scopes.
package struct FireAnnouncement {
    let name: HookName
    let firedBy: FiredBy
    let failure: FireFailure?
    let namespace: String

    init(_ name: HookName, _ firedBy: FiredBy, _ failure: FireFailure?, namespace: String) {
        self.name = name
        self.firedBy = firedBy
        self.failure = failure
        self.namespace = namespace
    }

    var exchange: String {
        HookExchanges.exchange(failure == nil ? "hook-fired" : "hook-failed", namespace: namespace)
    }

    /// What fired, the group and the hook: `primary.<firedBy>.<hookGroupId>.<hookId>`.
    ///
    /// Identifiers may be longer than the whole of a routing key, so a part that does not fit is a mere `_`.
    package static func routingKey(_ name: HookName, _ firedBy: FiredBy) -> String {
        // Besides the two names there are three dots.
        var rest = longestKey - "primary".utf8.count - firedBy.rawValue.utf8.count - 3
        let parts = [name.group, name.hook].map { part in
            guard part.utf8.count <= rest - 1 else { return "_" }
            rest -= part.utf8.count
            return part
        }
        return "primary.\(firedBy.rawValue).\(parts.joined(separator: "."))"
    }

    /// What AMQP allows.
    private static let longestKey = 255

    /// The kind of a failure, in a word that tells nothing about payloads and scopes.
    var reason: String? {
        switch failure?.kind {
        case nil: nil
        case .template: "TemplateError"
        case .network: "NetworkError"
        case .service(_, let code, _): code
        }
    }

    /// The beginning of a statement that puts the message into the outbox; a `from` clause with the columns `hook_group_id`,
    /// `hook_id`, `fired_by`, `task_id` and `started` of a fire completes it.
    var insertion: SQL {
        """
        insert into hooks.outbox (exchange, routing_key, body)
        select \(exchange)::text, \(Self.routingKey(name, firedBy))::text, \(Self.body(reason: reason))\u{20}
        """
    }

    /// The same for several fires that made their tasks; the clause has the column `routing_key` as well.
    static func fired(namespace: String) -> SQL {
        """
        insert into hooks.outbox (exchange, routing_key, body)
        select \(HookExchanges.exchange("hook-fired", namespace: namespace))::text, routing_key, \(body(reason: nil))\u{20}
        """
    }

    private static func body(reason: String?) -> SQL {
        """
        json_strip_nulls(json_build_object('hookGroupId', hook_group_id, 'hookId', hook_id, 'firedBy', fired_by,
            'taskId', task_id, 'time', to_char(started at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'reason', \(reason)::text))::text
        """
    }
}
