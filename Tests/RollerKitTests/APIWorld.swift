// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Postgres
import Schedules
import Synchronization
import Taskcluster
import TestSupport

@testable import RollerKit

/// What the auth service was asked, and how it is.
final class AuthService: Sendable {
    private let state = Mutex((requests: [AuthenticationRequest](), isDown: false, answer: JSONValue?.none))
    private let directory: CredentialDirectory
    let root = Hawk.Credentials(clientID: "root", accessToken: "the-secret-of-the-root-client")

    init() {
        directory = CredentialDirectory(
            clients: ["root": Client(id: "root", accessToken: "the-secret-of-the-root-client", scopes: ["*"])],
            roles: RoleSet([])
        )
    }

    var requests: [AuthenticationRequest] { state.withLock { $0.requests } }

    func goDown() { state.withLock { $0.isDown = true } }

    /// Makes it answer the same to everybody.
    func answer(_ json: JSONValue) { state.withLock { $0.answer = json } }

    var verifier: RollerAPI.Verifier {
        { [self] request in
            let (isDown, fixed) = state.withLock { state in
                state.requests.append(request)
                return (state.isDown, state.answer)
            }
            if isDown { throw AuthVerdict.Unavailable() }
            return AuthVerdict(json: fixed ?? directory.authenticate(request, now: .now()).json)
        }
    }
}

/// A world with a server of the API.
struct APIWorld: Sendable {
    static let sheriff = "mozilla-auth0/ad|Mozilla-LDAP|sheriff"
    static let prefix = "project:releng:roller:"

    let world: RollerWorld
    let auth: AuthService
    let curl: CurlTransport
    let port: Int

    static let catalogue = ActionCatalogue([
        .ping, .reboot,
        ActionDescription(
            "quarantine",
            title: "Quarantine",
            summary: "No more tasks.",
            isDestructive: false,
            parameters: ["type": "object", "properties": ["reason": ["type": "string"]]]
        ),
        ActionDescription(
            "ipmi_reset",
            title: "Reset",
            summary: "Resets.",
            isDestructive: true,
            controls: [.ipmi]
        ),
        ActionDescription(
            "reimage",
            title: "Reimage",
            summary: "Installs anew.",
            isDestructive: true,
            needsConfirmation: true,
            parameters: [
                "type": "object",
                "properties": [
                    "timeout": ["type": "integer", "minimum": 1],
                    "mode": ["type": "string", "enum": ["hard", "soft"]],
                ],
            ]
        ),
    ])

    /// Serves the API of a fresh world.
    static func with<R: Sendable>(
        settings change: (inout RollerAPISettings) -> Void = { _ in },
        database: @Sendable (RollerWorld) throws -> PostgresPool = { $0.pool },
        credentials: CredentialStore = CredentialStore(directory: nil),
        _ body: @Sendable @escaping (APIWorld) async throws -> R
    ) async throws -> R {
        var settings = RollerAPISettings()
        settings.origins = ["https://tools.example", "https://other.example"]
        change(&settings)
        return try await RollerWorld.with { [settings] world in
            let curl = CurlTransport()
            defer { curl.shutdown() }
            let pool = try database(world)
            let auth = AuthService()
            let api = RollerAPI(
                settings: settings,
                catalogue: catalogue,
                jobs: JobStore(
                    pool: pool,
                    outbox: world.outbox,
                    exchanges: world.exchanges,
                    notifications: world.notifications
                ),
                inventory: InventoryStore(pool: pool),
                credentials: credentials,
                verify: auth.verifier
            )
            let server = HTTPServer(
                configuration: HTTPServerConfiguration(),
                name: "roller-tests",
                rootURL: "http://roller.example",
                apis: [RollerReferences.api(schemas: try SchemaStore.locate())],
                authenticator: nil,
                health: HealthRegistry(),
                raw: RollerHealth(
                    RollerHealth.storeChecks(pool) + [RollerHealth.inventoryCheck(pool, credentials)]
                ).routes + api.routes
            )
            return try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await server.run() }
                defer { group.cancelAll() }
                return try await body(
                    APIWorld(
                        world: world,
                        auth: auth,
                        curl: curl,
                        port: await server.waitUntilListening()
                    )
                )
            }
        }
    }

    // MARK: - Calling

    struct Answer: Sendable {
        let status: Int
        let headers: HTTPHeaders
        let bytes: [UInt8]

        var json: JSONValue { (try? JSONValue(parsing: bytes)) ?? .null }
        var text: String { String(decoding: bytes, as: UTF8.self) }
    }

    /// The signature of a request by a temporary client with scopes below the prefix; a leading `=` gives one as it is.
    func signature(
        _ method: String,
        _ target: String,
        scopes: [String],
        as clientID: String = sheriff,
        host: String? = nil,
        port signed: Int? = nil
    ) throws -> String {
        let scopes = scopes.map { $0.hasPrefix("=") ? String($0.dropFirst()) : Self.prefix + $0 }
        let now = Timestamp.now()
        let credentials = TemporaryCredentials.issue(
            named: clientID,
            by: auth.root,
            scopes: scopes,
            start: now - .seconds(60),
            expiry: now + .seconds(3600)
        )
        return Hawk.authorization(
            for: method,
            url: Hawk.Target(host: host ?? "127.0.0.1", port: signed ?? port, resource: target),
            credentials: credentials,
            now: now
        )
    }

    /// Sends a request; with scopes it is signed.
    func call(
        _ method: String,
        _ path: String,
        scopes: [String]? = ["*"],
        as clientID: String = sheriff,
        body: [UInt8]? = nil,
        headers: [String: String] = [:]
    ) async throws -> Answer {
        let target = "/api/v1/\(path)"
        var fields: HTTPHeaders = [:]
        if let scopes { fields["Authorization"] = try signature(method, target, scopes: scopes, as: clientID) }
        if body != nil { fields["Content-Type"] = "application/json" }
        for (name, value) in headers { fields[name] = value }
        let response = try await curl.send(
            HTTPRequest(
                method: method,
                url: "http://127.0.0.1:\(port)\(target)",
                headers: fields,
                body: body.map { .bytes($0) } ?? .none,
                timeout: .seconds(90)
            )
        )
        return Answer(status: response.status, headers: response.headers, bytes: response.body)
    }

    /// Sends a JSON document.
    func send(_ method: String, _ path: String, _ value: JSONValue, scopes: [String] = ["*"]) async throws -> Answer {
        try await call(method, path, scopes: scopes, body: value.bytes())
    }

    /// Stores a machine that is the worker of the same name in group mdc1.
    @discardableResult
    func managed(_ name: String = "t-linux64-ms-001", group: String? = "mdc1") async throws -> String {
        try await world.machine(
            name,
            worker: WorkerName(name, group: group, provisionerID: "releng-hardware", workerType: "linux")
        )
    }
}
