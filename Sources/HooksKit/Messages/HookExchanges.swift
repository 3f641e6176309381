// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Pulse

/// The exchanges on which changes of hooks are announced.
package enum HookExchanges {
    /// The short names, as clients know them.
    package static let names = ["hook-created", "hook-updated", "hook-deleted"]

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
        reference(
            "hook-created",
            "hookCreated",
            "Hook Created",
            "A hook was created, or created again without a change."
        ),
        reference("hook-updated", "hookUpdated", "Hook Updated", "A hook was given another definition."),
        reference("hook-deleted", "hookDeleted", "Hook Deleted", "A hook was deleted, or was not there to be deleted."),
    ]

    private static func reference(
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
}
