// SPDX-License-Identifier: MPL-2.0
import Core
import Glibc
import HTTPClient
import JSON
import Logging
import Schedules
import ServiceLifecycle

/// Where notifications go.
public struct NotificationRoutes: Sendable {
    /// Who sends mail.
    public var sender = "taskcluster-local@localhost"
    /// The server that takes mail; without one, mail becomes files.
    public var relay: MailRelay?
    /// The directory for mail that no server takes.
    public var mailDirectory: String
    /// The base URL of a Matrix server and the token of our user there.
    public var matrix: (url: String, token: String)?
    /// The base URL of Slack's methods and the token of our application there.
    public var slack: (url: String, token: String)?
    /// Exceptions of tasks that nobody is told about, because somebody wanted them.
    public var quietReasons: Set<String> = ["canceled"]

    /// Keeps mail in a directory and sends nothing else.
    public init(mailDirectory: String) {
        self.mailDirectory = mailDirectory
    }

    /// Whether there is a way to deliver this kind; if not, it is recorded alone.
    func delivers(_ kind: NotificationKind) -> Bool {
        switch kind {
        case .email: true
        case .matrix: matrix != nil
        case .slack: slack != nil
        case .pulse, .irc: false
        }
    }
}

/// A delivery that did not succeed.
struct DeliveryFailure: Error, CustomStringConvertible {
    let description: String
}

/// Delivers notifications after the request that asked for them: at least once, with growing pauses between attempts.
struct NotificationCourier: Service {
    let store: NotificationStore
    let routes: NotificationRoutes
    let transport: any HTTPTransport
    let wake: Signal
    let now: @Sendable () -> Timestamp
    private let smtp: SMTPClient?

    init(
        store: NotificationStore,
        routes: NotificationRoutes,
        transport: any HTTPTransport,
        wake: Signal,
        now: @escaping @Sendable () -> Timestamp
    ) {
        self.store = store
        self.routes = routes
        self.transport = transport
        self.wake = wake
        self.now = now
        smtp = routes.relay.map { SMTPClient(relay: $0) }
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                do {
                    while try await deliver() {}
                } catch {
                    Logger.current.warning("notifications wait", metadata: ["error": "\(error)"])
                }
                // The timeout is for what was postponed, and for what other instances took in and could not deliver.
                _ = await wake.wait(timeout: .seconds(5))
            }
        }
    }

    private func deliver() async throws -> Bool {
        let parcels = try await store.lend(limit: 10, now: now())
        for parcel in parcels {
            do {
                try await deliver(parcel)
                try await store.settle(parcel)
            } catch {
                Logger.current.warning(
                    "a notification was not delivered",
                    metadata: [
                        "notification": "\(parcel.id)", "kind": "\(parcel.notification.kind.rawValue)",
                        "attempt": "\(parcel.attempt)", "error": "\(error)",
                    ]
                )
                try await store.postpone(parcel, now: now())
            }
        }
        return !parcels.isEmpty
    }

    private func deliver(_ parcel: NotificationStore.Parcel) async throws {
        switch parcel.notification.kind {
        case .email:
            let mail = MailText(parcel.notification, id: parcel.id, from: routes.sender, now: now())
            if let smtp { try await smtp.send(mail) } else { try file(mail, id: parcel.id) }
        case .matrix: try await matrix(parcel)
        case .slack: try await slack(parcel)
        case .pulse, .irc: break
        }
    }

    /// Puts a mail where people and tests can read it.
    private func file(_ mail: MailText, id: Int) throws {
        // By default it lies below the blob directory, which is made with the first blob.
        if let slash = routes.mailDirectory.lastIndex(of: "/") { mkdir(String(routes.mailDirectory[..<slash]), 0o700) }
        mkdir(routes.mailDirectory, 0o700)
        let path = "\(routes.mailDirectory)/\(id).eml"
        guard let stream = fopen(path + ".part", "we") else {
            throw DeliveryFailure(description: "cannot write to the mail directory")
        }
        let bytes = Array(mail.text.utf8)
        let isWritten = fwrite(bytes, 1, bytes.count, stream) == bytes.count
        let isClosed = fclose(stream) == 0
        guard isWritten, isClosed, rename(path + ".part", path) == 0 else {
            throw DeliveryFailure(description: "cannot write to the mail directory")
        }
    }

    private func matrix(_ parcel: NotificationStore.Parcel) async throws {
        guard let matrix = routes.matrix else { throw DeliveryFailure(description: "no Matrix server is configured") }
        let wish = parcel.notification.body
        var message: JSONValue = ["msgtype": wish["msgtype"] ?? "m.notice", "body": wish["body"] ?? ""]
        if let format = wish["format"] { message["format"] = format }
        if let text = wish["formattedBody"] { message["formatted_body"] = text }
        // The number makes a repeated delivery of one notification one message.
        let room = PathSegment.encoded(parcel.notification.address)
        let path = "/_matrix/client/v3/rooms/\(room)/send/m.room.message/slipway-\(parcel.id)"
        _ = try await send("PUT", matrix.url + path, token: matrix.token, message)
    }

    private func slack(_ parcel: NotificationStore.Parcel) async throws {
        guard let slack = routes.slack else { throw DeliveryFailure(description: "no Slack is configured") }
        let wish = parcel.notification.body
        var message: JSONValue = ["channel": JSONValue(parcel.notification.address), "text": wish["text"] ?? ""]
        if let blocks = wish["blocks"] { message["blocks"] = blocks }
        if let attachments = wish["attachments"] { message["attachments"] = attachments }
        let answer = try await send("POST", slack.url + "/chat.postMessage", token: slack.token, message)
        guard try answer.json()["ok"]?.bool == true else {
            throw DeliveryFailure(description: "Slack refused: \(try answer.json()["error"]?.string ?? "no reason")")
        }
    }

    private func send(_ method: String, _ url: String, token: String, _ body: JSONValue) async throws -> HTTPResponse {
        let request = HTTPRequest(
            method: method,
            url: url,
            headers: ["Content-Type": "application/json; charset=utf-8", "Authorization": "Bearer \(token)"],
            body: .bytes(body.bytes()),
            timeout: .seconds(20)
        )
        let answer = try await transport.send(request)
        guard (200..<300).contains(answer.status) else {
            throw DeliveryFailure(description: "the server answered with \(answer.status)")
        }
        return answer
    }
}
