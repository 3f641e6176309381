// SPDX-License-Identifier: MPL-2.0
import APIServer
import JSON
import Schedules
import Taskcluster

extension AuthAPI {
    var clientEndpoints: [Endpoint] {
        [
            endpoint(
                .get,
                "/clients/",
                "listClients",
                scopes: .scope("auth:list-clients"),
                query: ["prefix": .any, "continuationToken": .continuationToken, "limit": .limit],
                output: "list-clients-response",
                category: "Clients",
                "List clients by name"
            ) { request in
                let page = request.page
                let records = try await directory.clients(
                    prefix: request.query["prefix"] ?? "",
                    after: try page.string(0),
                    limit: page.fetch
                )
                return .json(page.reply("clients", records, columns: { [JSONValue($0.clientID)] }, json: json))
            },
            endpoint(
                .get,
                "/clients/<clientId>",
                "client",
                scopes: .scope("auth:get-client:<clientId>"),
                output: "get-client-response",
                category: "Clients",
                "Get a client"
            ) { request in
                let clientID = request.parameter("clientId")
                guard let record = try await directory.client(clientID) else {
                    throw QueueProblem(.notFound, "There is no client \(clientID).")
                }
                return .json(json(record))
            },
            endpoint(
                .put,
                "/clients/<clientId>",
                "createClient",
                scopes: .allOf(
                    .scope("auth:create-client:<clientId>"),
                    .each("scope", in: "scopes", scope: "<scope>")
                ),
                mode: .deferred,
                input: "create-client-request",
                output: "create-client-response",
                category: "Clients",
                "Create a client",
                create
            ),
            endpoint(
                .post,
                "/clients/<clientId>/reset",
                "resetAccessToken",
                scopes: .scope("auth:reset-access-token:<clientId>"),
                output: "create-client-response",
                category: "Clients",
                "Give a client a new access token"
            ) { request in
                let (record, token) = try await directory.resetAccessToken(
                    request.parameter("clientId"),
                    by: request.author
                )
                return answer(record, token: token)
            },
            endpoint(
                .post,
                "/clients/<clientId>",
                "updateClient",
                scopes: .allOf(
                    .scope("auth:update-client:<clientId>"),
                    .each("scope", in: "scopesAdded", scope: "<scope>")
                ),
                mode: .deferred,
                input: "create-client-request",
                output: "get-client-response",
                category: "Clients",
                "Change a client",
                update
            ),
            endpoint(
                .post,
                "/clients/<clientId>/enable",
                "enableClient",
                scopes: .scope("auth:enable-client:<clientId>"),
                output: "get-client-response",
                category: "Clients",
                "Let a disabled client in again"
            ) {
                try await setDisabled(false, $0)
            },
            endpoint(
                .post,
                "/clients/<clientId>/disable",
                "disableClient",
                scopes: .scope("auth:disable-client:<clientId>"),
                output: "get-client-response",
                category: "Clients",
                "Refuse a client from now on"
            ) {
                try await setDisabled(true, $0)
            },
            endpoint(
                .delete,
                "/clients/<clientId>",
                "deleteClient",
                scopes: .scope("auth:delete-client:<clientId>"),
                category: "Clients",
                "Remove a client"
            ) { request in
                try await directory.deleteClient(request.parameter("clientId"), by: request.author)
                return .empty
            },
        ]
    }

    private func create(_ request: APIRequest) async throws -> APIResponse {
        let scopes = request.strings("scopes")
        try await request.authorize(["scopes": JSONValue(scopes)])
        try DirectoryRules.check(scopes: scopes)
        let record = ClientRecord(
            clientID: request.parameter("clientId"),
            description: request.body["description"]?.string ?? "",
            scopes: Scope.normalized(scopes),
            expires: try expires(request),
            created: now(),
            deleteOnExpiration: request.body["deleteOnExpiration"]?.bool ?? false
        )
        return answer(record, token: try await directory.createClient(record, by: request.author))
    }

    private func update(_ request: APIRequest) async throws -> APIResponse {
        // Without the first scope nobody learns whether the client exists.
        try await request.authorize(["scopesAdded": []])
        let scopes = request.body["scopes"] == nil ? nil : request.strings("scopes")
        try DirectoryRules.check(scopes: scopes ?? [])
        let wish = ClientChange(
            description: request.body["description"]?.string ?? "",
            expires: try expires(request),
            scopes: scopes.map { Scope.normalized($0) },
            deleteOnExpiration: request.body["deleteOnExpiration"]?.bool
        )
        let record = try await directory.updateClient(request.parameter("clientId"), wish, by: request.author) {
            added in
            try await request.authorize(["scopesAdded": JSONValue(added)])
        }
        return .json(json(record))
    }

    private func setDisabled(_ disabled: Bool, _ request: APIRequest) async throws -> APIResponse {
        .json(
            json(try await directory.setDisabled(disabled, client: request.parameter("clientId"), by: request.author))
        )
    }

    private func expires(_ request: APIRequest) throws(QueueProblem) -> Timestamp {
        guard let expires = request.body["expires"]?.string.flatMap({ Timestamp($0) }) else {
            throw QueueProblem(.input, "`expires` is not a date and time.")
        }
        return expires
    }

    private func json(_ record: ClientRecord) -> JSONValue {
        record.json(expandedScopes: directory.expand(record.scopes))
    }

    private func answer(_ record: ClientRecord, token: String) -> APIResponse {
        var json = json(record)
        json["accessToken"] = JSONValue(token)
        return .json(json)
    }
}
