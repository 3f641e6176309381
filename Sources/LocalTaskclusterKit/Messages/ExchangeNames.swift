// SPDX-License-Identifier: MPL-2.0

/// The names of all exchanges of the deployment, which follow from those of the queue.
struct ExchangeNames: Sendable, Hashable {
    /// The part of the queue's exchange names before their last word.
    let queuePrefix: String

    /// The same for auth.
    var authPrefix: String { prefix("auth") }
    /// The exchange for messages that notify was asked to publish.
    var notification: String { prefix("notify") + "notification" }

    /// Every exchange, to be declared at start.
    var all: [String] {
        QueueMessages.exchanges.map { queuePrefix + $0 } + AuthMessages.exchanges.map { authPrefix + $0 }
            + [notification]
    }

    /// `taskcluster-queue` becomes `taskcluster-auth`; a prefix of another shape is shared.
    private func prefix(_ service: String) -> String {
        let parts = queuePrefix.split(separator: "/", omittingEmptySubsequences: false).map { part in
            part.hasSuffix("-queue") ? part.dropLast(5) + service : String(part)
        }
        return parts.joined(separator: "/")
    }
}
