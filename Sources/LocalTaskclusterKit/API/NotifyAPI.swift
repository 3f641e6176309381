// SPDX-License-Identifier: MPL-2.0
public import APIServer
public import Core
public import JSON
public import Schedules
import Taskcluster

/// Notify: mail, chat and messages on the bus for people.
public struct NotifyAPI: Sendable {
    private let store: NotificationStore
    private let routes: NotificationRoutes
    private let publish: @Sendable (_ routingKey: String, _ message: JSONValue) async throws -> Void
    private let wake: Signal
    private let now: @Sendable () -> Timestamp

    /// Puts the endpoints together.
    ///
    /// - Parameters:
    ///   - store: Where notifications wait.
    ///   - routes: What can be delivered; the rest is recorded.
    ///   - wake: Wakes the courier.
    ///   - now: The clock.
    ///   - publish: Puts a message on the bus.
    public init(
        store: NotificationStore,
        routes: NotificationRoutes,
        wake: Signal,
        now: @escaping @Sendable () -> Timestamp,
        publish: @escaping @Sendable (_ routingKey: String, _ message: JSONValue) async throws -> Void
    ) {
        self.store = store
        self.routes = routes
        self.wake = wake
        self.now = now
        self.publish = publish
    }

    /// The API over a folder of schemas.
    public func api(schemas: SchemaStore) -> API {
        API(
            service: "notify",
            title: "Notify",
            description: "Tells people what has happened.",
            schemas: schemas,
            endpoints: notificationEndpoints + denyListEndpoints,
            exchanges: [
                ExchangeReference(
                    exchange: "notification",
                    name: "notify",
                    title: "Notification",
                    description: "Somebody asked for this message to be published.",
                    routingKey: [
                        ExchangeReference.Key(
                            "routingKeyKind",
                            summary: "Tells these keys from others.",
                            constant: "primary"
                        ),
                        ExchangeReference.Key(
                            "reserved",
                            summary: "The routing key that was asked for.",
                            multipleWords: true,
                            required: false
                        ),
                    ],
                    schema: "v1/notification-message.json"
                )
            ]
        )
    }

    // MARK: - Notifications

    private var notificationEndpoints: [Endpoint] {
        [
            endpoint(.post, "/email", "email", "notify:email:<address>", "email-request", "Send a mail") { request in
                try await notify(request, .email, request.body["address"])
            },
            endpoint(
                .post,
                "/pulse",
                "pulse",
                "notify:pulse:<address>",
                "pulse-request",
                "Publish a message on the bus",
                pulse
            ),
            endpoint(
                .post,
                "/matrix",
                "matrix",
                "notify:matrix-room:<address>",
                "matrix-request",
                "Say something in a Matrix room"
            ) { request in
                try await notify(request, .matrix, request.body["roomId"])
            },
            endpoint(
                .post,
                "/slack",
                "slack",
                "notify:slack-channel:<address>",
                "slack-request",
                "Say something in a Slack channel"
            ) { request in
                try await notify(request, .slack, request.body["channelId"])
            },
            endpoint(.post, "/irc", "irc", "notify:<address>", "irc-request", "Record a message for IRC") { request in
                let channel = request.body["channel"]?.string.map { "irc-channel:\($0)" }
                let user = request.body["user"]?.string.map { "irc-user:\($0)" }
                return try await notify(request, .irc, (channel ?? user).map { JSONValue($0) })
            },
        ]
    }

    private func notify(_ request: APIRequest, _ kind: NotificationKind, _ address: JSONValue?) async throws
        -> APIResponse
    {
        guard let address = address?.string else { throw QueueProblem(.input, "The notification has no address.") }
        try await request.authorize(["address": JSONValue(address)])
        let notification = Notification(kind: kind, address: address, body: request.body)
        let isNew = try await store.add(notification, deliverable: routes.delivers(kind), now: now())
        guard isNew else { return .empty }
        wake.notify()
        return .text("OK")
    }

    private func pulse(_ request: APIRequest) async throws -> APIResponse {
        let key = request.body["routingKey"]?.string ?? ""
        try await request.authorize(["address": JSONValue(key)])
        let denied = Notification(kind: .pulse, address: key, body: request.body)
        _ = try await store.add(denied, deliverable: false, now: now())
        try await publish(key, request.body["message"] ?? .object([:]))
        return .text("OK")
    }

    // MARK: - Deny list

    private var denyListEndpoints: [Endpoint] {
        let scope = "notify:manage-denylist"
        return [
            endpoint(
                .post,
                "/denylist/add",
                "addDenylistAddress",
                scope,
                mode: .automatic,
                "notification-address",
                "Spare an address"
            ) { request in
                let (kind, address) = Self.address(request)
                try await store.deny(kind, address)
                return .json(.object([:]))
            },
            endpoint(
                .delete,
                "/denylist/delete",
                "deleteDenylistAddress",
                scope,
                mode: .automatic,
                "notification-address",
                "Do not spare an address any more"
            ) { request in
                let (kind, address) = Self.address(request)
                try await store.allow(kind, address)
                return .json(.object([:]))
            },
            endpoint(
                .get,
                "/denylist/list",
                "listDenylist",
                scope,
                mode: .automatic,
                query: .paging,
                nil,
                output: "notification-address-list",
                "List the addresses that are spared"
            ) { request in
                let page = request.page
                let last: (kind: String, address: String)? =
                    if let kind = try page.string(0), let address = try page.string(1) { (kind, address) } else { nil }
                let rows = try await store.denied(after: last, limit: page.fetch)
                return .json(
                    page.reply("addresses", rows, columns: { [JSONValue($0.kind), JSONValue($0.address)] }) {
                        ["notificationType": JSONValue($0.kind), "notificationAddress": JSONValue($0.address)]
                    }
                )
            },
        ]
    }

    private static func address(_ request: APIRequest) -> (kind: String, address: String) {
        (request.body["notificationType"]?.string ?? "", request.body["notificationAddress"]?.string ?? "")
    }

    private func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        _ name: String,
        _ scope: String,
        mode: Endpoint.Mode = .deferred,
        query: [String: QueryRule] = [:],
        _ input: String?,
        output: String? = nil,
        _ title: String,
        _ handler: @escaping @Sendable (APIRequest) async throws -> APIResponse
    ) -> Endpoint {
        .answering(
            method,
            route,
            name,
            scopes: .scope(scope),
            mode: mode,
            query: query,
            input: input,
            output: output,
            category: "Notifications",
            stability: .experimental,
            title,
            handler
        )
    }
}
