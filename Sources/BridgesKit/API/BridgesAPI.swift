// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Taskcluster

/// What operators ask about bridges.
struct BridgesAPI: Sendable {
    let deliveries: DeliveryStore
    let repositories: RepositoryStore

    private static let parameters: [String: ParameterRule] = [
        "source": "^[a-z0-9][a-z0-9-]{0,62}$",
        "deliveryId": "^[\\x21-\\x7e]{1,200}$",
    ]

    func api(schemas: SchemaStore) -> API {
        API(
            service: "bridges",
            title: "Bridges",
            description: """
                Bridges carry events from outside onto the bus: webhooks, the minutes of the clock, pushes to \
                Mercurial repositories. This API shows what came in and sends it again.
                """,
            schemas: schemas,
            endpoints: [
                Endpoint(
                    .get,
                    "/deliveries/<source>",
                    name: "listDeliveries",
                    scopes: .scope("bridges:list-deliveries:<source>"),
                    query: .paging,
                    parameters: Self.parameters,
                    output: "v1/list-deliveries-response.json",
                    category: "Deliveries",
                    title: "List deliveries",
                    description: "Lists the webhooks of a source that are remembered, newest first, without bodies.",
                    handler: list
                ),
                Endpoint(
                    .get,
                    "/deliveries/<source>/<deliveryId>",
                    name: "delivery",
                    scopes: .scope("bridges:get-delivery:<source>"),
                    parameters: Self.parameters,
                    output: "v1/delivery.json",
                    category: "Deliveries",
                    title: "Get a delivery",
                    description: "Answers with a webhook and its body.",
                    handler: get
                ),
                Endpoint(
                    .post,
                    "/deliveries/<source>/<deliveryId>/replay",
                    name: "replayDelivery",
                    scopes: .scope("bridges:replay-delivery:<source>"),
                    parameters: Self.parameters,
                    output: "v1/replay-response.json",
                    category: "Deliveries",
                    title: "Replay a delivery",
                    description: """
                        Publishes the message of a webhook once more. The member `replay` of the message counts the \
                        repetitions, so that nobody takes it for a copy.
                        """,
                    handler: replay
                ),
                Endpoint(
                    .get,
                    "/repositories",
                    name: "listRepositories",
                    scopes: .scope("bridges:list-repositories"),
                    output: "v1/list-repositories-response.json",
                    category: "Repositories",
                    title: "List repositories",
                    description: "Lists the Mercurial repositories that are or were watched, and how that goes.",
                    handler: listRepositories
                ),
            ]
        )
    }

    @Sendable private func list(_ request: APIRequest) async throws -> APIResponse {
        let page = request.page
        let rows = try await deliveries.list(
            source: request.parameter("source"),
            before: try page.int(0),
            limit: page.fetch
        )
        return .json(
            page.reply("deliveries", rows, columns: { [JSONValue($0.number)] }, json: { .object(Self.summary($0)) })
        )
    }

    @Sendable private func get(_ request: APIRequest) async throws -> APIResponse {
        let (source, id) = (request.parameter("source"), request.parameter("deliveryId"))
        guard let row = try await deliveries.delivery(source: source, deliveryID: id) else { throw Self.unknown }
        var answer = Self.summary(row)
        answer["message"] = try JSONValue(parsing: row.delivery.message(exchange: deliveries.exchange(source)).body)
        return .json(.object(answer))
    }

    @Sendable private func replay(_ request: APIRequest) async throws -> APIResponse {
        let (source, id) = (request.parameter("source"), request.parameter("deliveryId"))
        guard let count = try await deliveries.replay(source: source, deliveryID: id) else { throw Self.unknown }
        return .json(["source": .string(source), "deliveryId": .string(id), "replays": JSONValue(count)])
    }

    @Sendable private func listRepositories(_ request: APIRequest) async throws -> APIResponse {
        let rows = try await repositories.list()
        return .json([
            "repositories": .array(
                rows.map { row in
                    var entry: JSONObject = [
                        "name": .string(row.name),
                        "url": .string(row.url),
                        "failures": JSONValue(row.failures),
                        "nextPoll": .string(row.nextPoll.iso8601),
                    ]
                    if let cursor = row.cursor { entry["lastPushId"] = JSONValue(cursor) }
                    if let error = row.error { entry["error"] = .string(error) }
                    if let polled = row.polled { entry["polled"] = .string(polled.iso8601) }
                    return .object(entry)
                }
            )
        ])
    }

    private static let unknown = APIError(
        .resourceNotFound,
        "There is no such delivery, or it is remembered no longer"
    )

    private static func summary(_ row: DeliveryStore.Row) -> JSONObject {
        [
            "source": .string(row.delivery.source),
            "deliveryId": .string(row.delivery.deliveryID),
            "event": .string(row.delivery.event),
            "routingKey": .string(row.delivery.routingKey),
            "received": .string(row.received.iso8601),
            "replays": JSONValue(row.replays),
        ]
    }
}
