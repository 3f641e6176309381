// SPDX-License-Identifier: MPL-2.0

import APIServer
package import JSON
import Schedules
import Taskcluster

/// What the auth service says about a request.
package struct AuthVerdict: Sendable {
    /// The answer as it came.
    package let json: JSONValue

    package init(json: JSONValue) {
        self.json = json
    }

    /// The service cannot be asked.
    package struct Unavailable: Error {
        package init() {}
    }
}

/// Decides who gets in, and under which name.
struct RequestGate: Sendable {
    let settings: RollerAPISettings
    let verify: RollerAPI.Verifier

    /// Bodies whose hash is verified may have so many bytes.
    static let bodyLimit = 16 << 20

    // MARK: - Before credentials

    /// Refuses requests that were meant for another host.
    func checkHost(_ raw: RawRequest) throws {
        guard !settings.allowedHosts.contains("*") else { return }
        let host = Self.split(authority(raw)).host
        let isAllowed = settings.allowedHosts.contains { allowed in
            let allowed = allowed.lowercased()
            return allowed.hasPrefix(".") ? host.hasSuffix(allowed) || host == allowed.dropFirst() : host == allowed
        }
        guard isAllowed else { throw Refusal.detail(400, "Bad Request (400)") }
    }

    /// Refuses clients that want nothing we could say.
    func checkAccept(_ raw: RawRequest, isText: Bool) throws {
        guard let accept = raw.header("Accept") else { return }
        let json = ["*/*", "application/*", "application/json"]
        let wanted = isText ? json + ["text/*", "text/plain", "text/csv"] : json
        let isPossible = accept.split(separator: ",").contains { range in
            let parts = range.split(separator: ";").map(\.trimmed)
            guard let type = parts.first?.lowercased() else { return false }
            let isRefused = parts.dropFirst().contains { ["q=0", "q=0.0", "q=0.00", "q=0.000"].contains($0) }
            return wanted.contains(type) && !isRefused
        }
        guard isPossible else { throw Refusal.detail(406, "Could not satisfy the request Accept header.") }
    }

    /// What lets pages of other sites see the answer.
    func corsFields(_ raw: RawRequest, methods: [String]) -> [(name: String, value: String)] {
        var fields = [
            (name: "Access-Control-Allow-Headers", value: "Authorization,Content-Type"),
            (name: "Access-Control-Allow-Methods", value: (["OPTIONS"] + methods).joined(separator: ",")),
            (name: "Access-Control-Max-Age", value: "900"),
            (name: "Cache-Control", value: "no-store"),
        ]
        if settings.origins.contains("*") {
            fields.append((name: "Access-Control-Allow-Origin", value: "*"))
        } else {
            let origin = raw.header("Origin")
            let known = settings.origins.first { $0 == origin } ?? settings.origins.first ?? "null"
            fields.append((name: "Access-Control-Allow-Origin", value: known))
            fields.append((name: "Vary", value: "Origin"))
        }
        return fields
    }

    // MARK: - Credentials

    /// Finds out who sent a request; refuses everybody else.
    func authenticate(_ request: RollerRequest) async throws -> Caller {
        let authorization = request.raw.header("Authorization")
        if let authorization, authorization.lowercased().hasPrefix("bearer") {
            throw Refusal.detail(403, "Bearer credentials are not accepted; sign the request with Hawk.")
        }
        let verdict: JSONValue
        do {
            verdict = try await verify(authenticationRequest(request)).json
        } catch is AuthVerdict.Unavailable {
            throw Refusal(
                502,
                ["detail": "Authentication service unavailable."],
                headers: [(name: "Retry-After", value: "5")]
            )
        }
        guard let status = verdict["status"]?.string else {
            throw Refusal.detail(403, "'status' not found invalid auth response")
        }
        switch status {
        case "auth-success":
            guard let clientID = verdict["clientId"]?.string else {
                throw Refusal.detail(403, "'clientId' not found invalid auth response")
            }
            if let hash = verdict["hash"]?.string { try await check(hash, of: request) }
            return Caller(
                clientID: clientID,
                scopes: verdict["scopes"]?.array?.compactMap(\.string) ?? []
            )
        case "auth-failed":
            throw Refusal.detail(403, verdict["message"]?.string ?? "Unknown auth failure.")
        default:
            let message = verdict["message"]?.string ?? ""
            throw Refusal.detail(403, "invalid auth response status: \(status) \(message)")
        }
    }

    /// The request as its signature saw it.
    private func authenticationRequest(_ request: RollerRequest) -> AuthenticationRequest {
        let raw = request.raw
        let (host, port) = Self.split(authority(raw))
        let isTrusted = isFromProxy(raw)
        let isSecure = isTrusted && first(raw.header("X-Forwarded-Proto"))?.lowercased() == "https"
        let told =
            isTrusted && settings.usesForwardedPort ? first(raw.header("X-Forwarded-Port")).flatMap { Int($0) } : nil
        return AuthenticationRequest(
            method: raw.method.lowercased(),
            resource: raw.resource,
            host: host,
            port: isSecure ? 443 : told ?? port ?? 80,
            authorization: raw.header("Authorization"),
            sourceIP: request.sourceAddress
        )
    }

    /// Compares the hash that was signed with the body that arrived.
    private func check(_ hash: String, of request: RollerRequest) async throws {
        let body = try await request.body(limit: Self.bodyLimit)
        guard !body.isEmpty else { return }
        let type = request.raw.header("Content-Type") ?? ""
        guard Hawk.isPayloadHash(hash, contentType: type, body: body) else {
            throw Refusal.detail(403, "The body is not the one that was signed.")
        }
    }

    // MARK: - Addresses

    /// The caller's address, as trusted proxies tell it.
    func sourceAddress(_ raw: RawRequest) -> String? {
        settings.trust.caller(peer: raw.peerAddress, forwardedFor: raw.header("X-Forwarded-For"))
    }

    private func isFromProxy(_ raw: RawRequest) -> Bool { settings.trust.believes(raw.peerAddress) }

    private func authority(_ raw: RawRequest) -> String {
        if settings.usesForwardedHost, isFromProxy(raw), let told = first(raw.header("X-Forwarded-Host")) {
            return told
        }
        return raw.header("Host") ?? ""
    }

    private func first(_ list: String?) -> String? {
        list.map { $0.prefix { $0 != "," }.trimmed }.flatMap { $0.isEmpty ? nil : $0 }
    }

    /// Host in lower case and port; the colon of a port is the last one, unless it belongs to an address in brackets.
    static func split(_ authority: String) -> (host: String, port: Int?) {
        let text = authority.trimmed.lowercased()
        guard let colon = text.lastIndex(of: ":"), !text[colon...].contains("]") else { return (text, nil) }
        return (String(text[..<colon]), Int(text[text.index(after: colon)...]))
    }

    // MARK: - Scopes

    private static let noPermission = Refusal.detail(403, "You do not have permission to perform this action.")

    /// Refuses callers who may not do something.
    func require(_ operation: String, of caller: Caller) throws {
        try requireBase(caller)
        guard Scope.satisfies(caller.scopes, settings.scopePrefix + operation) else { throw Self.noPermission }
    }

    /// Whether a caller may do something.
    func may(_ operation: String, _ caller: Caller) -> Bool {
        Scope.satisfies(caller.scopes, settings.scopePrefix + operation)
    }

    /// What a caller may have of an action.
    enum Grant {
        /// Whatever the worker.
        case everywhere
        /// Only for the worker whose four names the scope holds.
        case named
    }

    /// Compares a caller's scopes with the ones that an action on a worker needs.
    ///
    /// Who misspells the name of an action gets to know it, if there is any action they may ask for.
    func grant(
        _ task: String?,
        _ worker: WorkerName,
        of caller: Caller,
        catalogue: ActionCatalogue
    ) throws -> Grant {
        try requireBase(caller)
        let names = task.flatMap { catalogue[$0] }.map { [$0.name] } ?? catalogue.actions.map(\.name)
        if names.contains(where: { may($0, caller) }) { return .everywhere }
        guard let provisioner = worker.provisionerID, let type = worker.workerType, let group = worker.workerGroup,
            names.contains(where: { may("\($0):\(provisioner)/\(type)/\(group)/\(worker.workerID)", caller) })
        else { throw Self.noPermission }
        return .named
    }

    /// Old configurations name scopes of which callers need one besides.
    private func requireBase(_ caller: Caller) throws {
        guard !settings.requiredScopes.isEmpty else { return }
        let hasOne = settings.requiredScopes.contains { required in
            // A star here has to be satisfied as it is: only who may everything below it passes.
            Scope.satisfies(caller.scopes, required)
        }
        guard hasOne else { throw Self.noPermission }
    }
}
