// SPDX-License-Identifier: MPL-2.0

import Core
import Crypto
package import HTTPClient
import JSON
import Logging
import ServiceLifecycle
package import TaskclusterClient

/// Delivers texts to people; whatever happens to them, the jobs they tell of stay as they are.
///
/// Any number of processes share the work: a text is leased by one of them, and one that is not delivered is tried five
/// times more, at growing distances.
package struct NotificationCourier: Service {
    let store: NotificationStore
    let client: TaskclusterClient
    let transport: any HTTPTransport
    /// The key that webhooks are signed with.
    let webhookSecret: String?

    /// The pauses after failures.
    static let pauses: [Duration] = [.seconds(1), .seconds(5), .seconds(30), .seconds(120), .seconds(600)]

    package init(
        store: NotificationStore,
        client: TaskclusterClient,
        transport: any HTTPTransport,
        webhookSecret: String?
    ) {
        self.store = store
        self.client = client
        self.transport = transport
        self.webhookSecret = webhookSecret
    }

    package func run() async throws {
        try await PeriodicService(name: "notifications of roller", every: .seconds(1)) {
            while try await deliverDue() > 0 {}
        }.run()
    }

    /// Delivers what is due, a bounded number at a time, and answers how many there were.
    @discardableResult
    package func deliverDue() async throws -> Int {
        let due = try await store.take(limit: 20, lease: .seconds(120))
        for one in due {
            do {
                try await deliver(one.notification)
                try await store.finish(one)
            } catch {
                try Task.checkCancellation()
                let pause = one.attempts <= Self.pauses.count ? Self.pauses[one.attempts - 1] : nil
                Logger.current.warning(
                    "a notification was not delivered",
                    metadata: [
                        "channel": "\(one.notification.channel.rawValue)", "error": "\(error)",
                        "attempts": "\(one.attempts)", "givenUp": "\(pause == nil)",
                    ]
                )
                try await store.fail(one, error: "\(error)", pause: pause)
            }
        }
        return due.count
    }

    private func deliver(_ notification: Notification) async throws {
        switch notification.channel {
        case .email:
            let link = notification.link.map { (text: notification.linkText ?? "roller", href: $0) }
            try await client.notify.email(
                to: notification.target,
                subject: notification.subject,
                content: notification.body,
                link: link,
                template: "fullscreen"
            )
        case .matrix:
            _ = try await client.call(
                "notify",
                "POST",
                ["matrix"],
                body: ["roomId": .string(notification.target), "body": .string(notification.body)]
            )
        case .slack:
            _ = try await client.call(
                "notify",
                "POST",
                ["slack"],
                body: ["channelId": .string(notification.target), "text": .string(notification.body)]
            )
        case .webhook:
            try await post(notification)
        case .log:
            var metadata: Logger.Metadata = ["text": "\(notification.body)"]
            if let job = notification.job { metadata["jobId"] = "\(job)" }
            Logger.current.notice("roller", metadata: metadata)
        }
    }

    /// Sends a text as a JSON document, signed as GitHub signs its webhooks; the delivery id stays the same on retries.
    private func post(_ notification: Notification) async throws {
        let body = JSONValue.object([
            "id": .string(notification.key), "subject": .string(notification.subject),
            "text": .string(notification.body), "taskId": notification.job.map(JSONValue.string) ?? .null,
        ]).bytes()
        var headers: HTTPHeaders = [
            "Content-Type": "application/json", "X-Roller-Delivery": Self.digest(Array(notification.key.utf8)),
        ]
        if let webhookSecret {
            let code = HMAC<SHA256>.authenticationCode(
                for: body,
                using: SymmetricKey(data: Array(webhookSecret.utf8))
            )
            headers.add("X-Hub-Signature-256", "sha256=\(Self.hexadecimal(code))")
        }
        let response = try await transport.send(
            HTTPRequest(method: "POST", url: notification.target, headers: headers, body: .bytes(body))
        )
        guard (200..<300).contains(response.status) else { throw Refused(status: response.status) }
    }

    private struct Refused: Error, CustomStringConvertible {
        let status: Int
        var description: String { "the webhook answered \(status)" }
    }

    private static func digest(_ bytes: [UInt8]) -> String { hexadecimal(SHA256.hash(data: bytes)) }

    private static func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }
}
