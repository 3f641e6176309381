// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Pulse

/// The exchanges on which changes and fires of hooks are announced.
package enum HookExchanges {
    /// The short names, as clients know them.
    package static let names = ["hook-created", "hook-updated", "hook-deleted", "hook-fired", "hook-failed"]

    /// The full name of an exchange.
    package static func exchange(_ name: String, namespace: String) -> String {
        "exchange/\(namespace)/v1/\(name)"
    }

    /// The message about a hook.
    ///
    /// The routing key has one optional part that is never used, so it is a mere `_`.
    static func message(_ exchange: String, _ name: HookName, namespace: String) -> PulseMessage {
        PulseMessage(
            exchange: Self.exchange(exchange, namespace: namespace),
            routingKey: "_",
            cc: [],
            payload: name.json
        )
    }

    /// How the exchanges are described to clients.
    static let references: [ExchangeReference] = [
        change(
            "hook-created",
            "hookCreated",
            "Hook Created",
            "A hook was created, or created again without a change."
        ),
        change("hook-updated", "hookUpdated", "Hook Updated", "A hook was given another definition."),
        change("hook-deleted", "hookDeleted", "Hook Deleted", "A hook was deleted, or was not there to be deleted."),
        fire("hook-fired", "hookFired", "Hook Fired", "A hook fired and its task exists."),
        fire("hook-failed", "hookFailed", "Hook Failed", "A hook fired and there will be no task."),
    ]

    private static func change(
        _ exchange: String,
        _ name: String,
        _ title: String,
        _ description: String
    ) -> ExchangeReference {
        ExchangeReference(
            exchange: exchange,
            name: name,
            title: title,
            description: description,
            routingKey: [
                ExchangeReference.Key(
                    "reserved",
                    summary: "Not used; reserved for parts that may be needed one day.",
                    multipleWords: true,
                    required: false
                )
            ],
            schema: "v1/pulse-hook-changed-message.json"
        )
    }

    private static func fire(
        _ exchange: String,
        _ name: String,
        _ title: String,
        _ description: String
    ) -> ExchangeReference {
        ExchangeReference(
            exchange: exchange,
            name: name,
            title: title,
            description: description,
            routingKey: [
                ExchangeReference.Key("routingKeyKind", summary: "Always `primary`.", constant: "primary"),
                ExchangeReference.Key("firedBy", summary: "What made the hook fire."),
                ExchangeReference.Key(
                    "hookGroupId",
                    summary: "Group of the hook; `_` if it is too long for a routing key.",
                    required: false
                ),
                ExchangeReference.Key(
                    "hookId",
                    summary: "Name of the hook; `_` if it is too long for a routing key.",
                    required: false
                ),
            ],
            schema: "v1/pulse-\(exchange)-message.json"
        )
    }
}
