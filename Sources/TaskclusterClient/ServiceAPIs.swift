// SPDX-License-Identifier: MPL-2.0

public import JSON
public import Taskcluster

/// The auth service: credentials, clients, roles.
public struct AuthAPI: Sendable {
    private let client: TaskclusterClient

    init(client: TaskclusterClient) { self.client = client }

    /// Asks who signed a request.
    public func authenticateHawk(_ request: AuthenticationRequest) async throws(TaskclusterError) -> JSONValue {
        try await client.call("auth", "POST", ["authenticate-hawk"], body: request.json)
    }

    /// The caller's own scopes, expanded.
    public func currentScopes() async throws(TaskclusterError) -> [String] {
        try await client.call("auth", "GET", ["scopes", "current"])["scopes"]?.array?.compactMap(\.string) ?? []
    }

    /// Scopes with everything their roles grant.
    public func expandScopes(_ scopes: [String]) async throws(TaskclusterError) -> [String] {
        let json = try await client.call("auth", "POST", ["scopes", "expand"], body: ["scopes": JSONValue(scopes)])
        return json["scopes"]?.array?.compactMap(\.string) ?? []
    }
}

/// The notify service: messages to people.
public struct NotifyAPI: Sendable {
    private let client: TaskclusterClient

    init(client: TaskclusterClient) { self.client = client }

    /// Sends a mail whose text is Markdown.
    public func email(
        to address: String,
        subject: String,
        content: String,
        link: (text: String, href: String)? = nil,
        template: String? = nil
    ) async throws(TaskclusterError) {
        var body: JSONValue = [
            "address": .string(address), "subject": .string(subject), "content": .string(content),
        ]
        if let link { body["link"] = ["text": .string(link.text), "href": .string(link.href)] }
        if let template { body["template"] = .string(template) }
        _ = try await client.call("notify", "POST", ["email"], body: body)
    }
}

/// The index: tasks by name.
public struct IndexAPI: Sendable {
    private let client: TaskclusterClient

    init(client: TaskclusterClient) { self.client = client }

    /// The task an index path leads to.
    public func findTask(_ path: String) async throws(TaskclusterError) -> JSONValue {
        try await client.call("index", "GET", ["task", path])
    }
}

extension TaskclusterClient {
    /// The auth service's methods.
    public var auth: AuthAPI { AuthAPI(client: self) }

    /// The notify service's methods.
    public var notify: NotifyAPI { NotifyAPI(client: self) }

    /// The index's methods.
    public var index: IndexAPI { IndexAPI(client: self) }
}
