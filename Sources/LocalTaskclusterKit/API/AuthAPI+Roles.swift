// SPDX-License-Identifier: MPL-2.0
import APIServer
import JSON
import Taskcluster

extension AuthAPI {
    var roleEndpoints: [Endpoint] {
        [
            endpoint(
                .get,
                "/roles/",
                "listRoles",
                scopes: .scope("auth:list-roles"),
                output: "list-roles-response",
                category: "Roles",
                "List all roles"
            ) { _ in
                .json(.array(try await directory.roles(after: nil, limit: Int(Int32.max)).map(json)))
            },
            endpoint(
                .get,
                "/roles2/",
                "listRoles2",
                scopes: .scope("auth:list-roles"),
                query: .paging,
                output: "list-roles2-response",
                category: "Roles",
                "List roles page by page"
            ) { request in
                let page = request.page
                let roles = try await directory.roles(after: try page.string(0), limit: page.fetch)
                return .json(page.reply("roles", roles, columns: { [JSONValue($0.id)] }, json: json))
            },
            endpoint(
                .get,
                "/roleids/",
                "listRoleIds",
                scopes: .scope("auth:list-roles"),
                query: .paging,
                output: "list-role-ids-response",
                category: "Roles",
                "List the names of roles"
            ) { request in
                let page = request.page
                let roles = try await directory.roles(after: try page.string(0), limit: page.fetch)
                return .json(page.reply("roleIds", roles, columns: { [JSONValue($0.id)] }) { JSONValue($0.id) })
            },
            endpoint(
                .get,
                "/roles/<roleId>",
                "role",
                scopes: .scope("auth:get-role:<roleId>"),
                output: "get-role-response",
                category: "Roles",
                "Get a role"
            ) { request in
                let roleID = request.parameter("roleId")
                guard let role = try await directory.role(roleID) else {
                    throw QueueProblem(.notFound, "There is no role \(roleID).")
                }
                return .json(json(role))
            },
            endpoint(
                .put,
                "/roles/<roleId>",
                "createRole",
                scopes: .allOf(.scope("auth:create-role:<roleId>"), .each("scope", in: "scopes", scope: "<scope>")),
                mode: .deferred,
                input: "create-role-request",
                output: "get-role-response",
                category: "Roles",
                "Create a role",
                create
            ),
            endpoint(
                .post,
                "/roles/<roleId>",
                "updateRole",
                scopes: .allOf(
                    .scope("auth:update-role:<roleId>"),
                    .each("scope", in: "scopesAdded", scope: "<scope>")
                ),
                mode: .deferred,
                input: "create-role-request",
                output: "get-role-response",
                category: "Roles",
                "Change a role",
                update
            ),
            endpoint(
                .delete,
                "/roles/<roleId>",
                "deleteRole",
                scopes: .scope("auth:delete-role:<roleId>"),
                category: "Roles",
                "Remove a role"
            ) { request in
                try await directory.deleteRole(request.parameter("roleId"), by: request.author)
                return .empty
            },
        ]
    }

    private func create(_ request: APIRequest) async throws -> APIResponse {
        let scopes = request.strings("scopes")
        try await request.authorize(["scopes": JSONValue(scopes)])
        try DirectoryRules.check(scopes: scopes)
        let now = now()
        let role = Role(
            id: request.parameter("roleId"),
            scopes: Scope.normalized(scopes),
            description: request.body["description"]?.string ?? "",
            created: now,
            lastModified: now
        )
        return .json(json(try await directory.createRole(role, by: request.author)))
    }

    private func update(_ request: APIRequest) async throws -> APIResponse {
        // Without the first scope nobody learns whether the role exists.
        try await request.authorize(["scopesAdded": []])
        let scopes = request.strings("scopes")
        try DirectoryRules.check(scopes: scopes)
        let role = try await directory.updateRole(
            request.parameter("roleId"),
            scopes: Scope.normalized(scopes),
            description: request.body["description"]?.string ?? "",
            by: request.author
        ) { added in
            try await request.authorize(["scopesAdded": JSONValue(added)])
        }
        return .json(json(role))
    }

    private func json(_ role: Role) -> JSONValue {
        [
            "roleId": JSONValue(role.id), "scopes": JSONValue(role.scopes),
            "expandedScopes": JSONValue(directory.expand(["assume:\(role.id)"])),
            "description": JSONValue(role.description), "created": JSONValue(role.created.iso8601),
            "lastModified": JSONValue(role.lastModified.iso8601),
        ]
    }
}
