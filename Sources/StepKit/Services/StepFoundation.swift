// SPDX-License-Identifier: MPL-2.0

public import APIServer
public import Core
public import HTTPClient
import Outbox
public import Postgres

public import Pulse
public import ServiceLifecycle
public import Taskcluster

/// What every step service is made of: the database, the bus, who is believed, and where it listens.
public struct StepFoundation: Sendable {
    /// The deployments a service can be part of.
    public enum Channel: String, Sendable, CaseIterable {
        case local
        case dev
        case testing
        case staging
        case production

        /// Whether issuers of tokens for tests are believed.
        public var allowsTests: Bool { self == .local || self == .dev || self == .testing }
    }

    /// The deployment.
    public let channel: Channel
    /// The database.
    public let pool: PostgresPool
    /// The bus.
    public let pulse: PulseConnection
    /// The steps.
    public let store: StepStore
    /// Whose tokens are believed; nil for nobody's.
    public let tokens: TokenVerifier?
    /// Whether everybody may read.
    public let isPublic: Bool
    /// The Taskcluster deployment.
    public let rootURL: String
    /// Where the service can be reached.
    public let baseURL: String
    /// Where it listens.
    public let http: HTTPServerConfiguration
    /// Whether deleting a step under its old path cancels it, too.
    public let deletesAllAtAlias: Bool
    /// What requests go out through.
    public let transport: CurlTransport
    /// What leases say about this process.
    public let owner: String

    /// Reads the settings of a service; what is wrong is collected there.
    public init(_ context: DaemonContext, service: String, defaultPort: Int, needsTokens: Bool) {
        let settings = context.settings
        channel = Self.channel(settings)
        pool = PostgresPool(PostgresConfiguration(settings: settings, applicationName: context.name))
        pulse = PulseConnection(PulseConfiguration(settings: settings), name: context.name)
        rootURL = settings.rootURL("taskcluster.root.url", "the Taskcluster deployment that knows clients and scopes")
        let port = settings.int(
            "shipit.port",
            default: defaultPort,
            in: 0...65535,
            "the port to listen on, unless HTTP_PORT names another one"
        )
        var http = HTTPServerConfiguration(settings: settings, defaultPort: port)
        http.bodyLimit = 1 << 20
        http.believesSignedPort = false
        http.allowedOrigins = Self.origins(settings)
        self.http = http
        baseURL = settings.url(
            "shipit.base.url",
            default: "http://\(http.host):\(http.port)",
            "where other services reach this one"
        )
        let namespace = settings.string(
            "shipit.exchange.namespace",
            default: "shipit",
            "the namespace of the exchange for the states of steps"
        )
        transport = CurlTransport()
        let schema = "shipit_\(service)"
        store = StepStore(
            schema: schema,
            pool: pool,
            announcement: StepAnnouncement(
                exchange: StepAnnouncement.exchange(namespace: namespace),
                service: service,
                baseURL: baseURL
            )
        )
        isPublic = settings.bool("shipit.public.read", default: false, "let everybody read steps")
        tokens = Self.tokens(settings, channel, transport, isRequired: needsTokens)
        deletesAllAtAlias = settings.bool(
            "shipit.legacy.delete",
            default: false,
            "let DELETE under the old path cancel steps that go on, as it did once"
        )
        owner = "\(context.name)-\(UInt64.random(in: 0..<1 << 48))"
        let pool = pool
        let pulse = pulse
        context.health.register("database") { try await pool.checkHealth() }
        context.health.register("broker") { try await pulse.checkHealth() }
        let (transport, ping) = (transport, "\(rootURL)/api/auth/v1/ping")
        context.health.register("auth") {
            let status = try await transport.send(HTTPRequest(url: ping, timeout: .seconds(4))).status
            guard status == 200 else { throw Unwell(description: "the auth service answered \(status)") }
        }
    }

    /// A service that is there and not well.
    private struct Unwell: Error, CustomStringConvertible {
        let description: String
    }

    /// The pages whose scripts may call, for which nobody speaks by default.
    private static func origins(_ settings: Settings) -> Set<String> {
        let help = "the pages whose scripts may call, as origins, with commas"
        let origins = (settings.optional("cors.origins", help) ?? "").split(separator: ",").map(String.init)
        for origin in origins where !isOrigin(origin) {
            settings.fail(
                "cors.origins",
                "must be origins such as https://ship.example.com, without a path; * is not one"
            )
        }
        return Set(origins)
    }

    /// Whether a text is a scheme, a host and perhaps a port, and nothing more.
    static func isOrigin(_ text: String) -> Bool {
        guard let scheme = ["https://", "http://"].first(where: { text.hasPrefix($0) }) else { return false }
        let host = text.dropFirst(scheme.utf8.count)
        return !host.isEmpty && host.utf8.allSatisfy { !"/?#@*, ".utf8.contains($0) }
    }

    /// The deployment the settings name.
    public static func channel(_ settings: Settings) -> Channel {
        let text = settings.string(
            "app.channel",
            default: "production",
            "the deployment: local, dev, testing, staging or production"
        )
        guard let channel = Channel(rawValue: text) else {
            settings.fail("app.channel", "must be local, dev, testing, staging or production")
            return .production
        }
        return channel
    }

    private static func tokens(
        _ settings: Settings,
        _ channel: Channel,
        _ transport: any HTTPTransport,
        isRequired: Bool
    ) -> TokenVerifier? {
        let help = "the host of the issuer of people's tokens"
        let domain = isRequired ? settings.required("auth.domain", help) : settings.optional("auth.domain", help) ?? ""
        guard !domain.isEmpty else { return nil }
        let audience = settings.required("auth.audience", "who people's tokens have to be for")
        let isPlain = domain.hasPrefix("http://")
        if isPlain, !channel.allowsTests {
            settings.fail("auth.domain", "an issuer without TLS is for APP_CHANNEL local, dev and testing alone")
        }
        let issuer = (isPlain || domain.hasPrefix("https://") ? domain : "https://\(domain)").trimmedSlash + "/"
        let clients = settings.optional("auth.client.id", "clients that may ask for tokens, with commas") ?? ""
        var rules = TokenRules(
            issuer: issuer,
            audience: audience,
            clients: Set(clients.split(separator: ",").map(String.init))
        )
        rules.groupsClaim = settings.string(
            "auth.groups.claim",
            default: rules.groupsClaim,
            "the claim with a person's groups"
        )
        rules.methodsClaim = settings.optional("auth.mfa.claim", "a claim with the methods of login, beside amr")
        let factors = settings.string(
            "auth.mfa.values",
            default: "mfa",
            "methods that are a second factor, with commas"
        )
        rules.secondFactors = Set(factors.split(separator: ",").map(String.init))
        rules.leeway = .seconds(
            settings.int("auth.leeway.s", default: 60, in: 0...120, "how far clocks may disagree, in seconds")
        )
        rules.refusesTestIssuers = !channel.allowsTests
        let reads = settings.bool(
            "auth.userinfo",
            default: false,
            "ask the issuer for the owners of opaque tokens, which may read then"
        )
        let signs = settings.bool(
            "shipit.allow.userinfo",
            default: false,
            "let the owners of opaque tokens sign, too"
        )
        rules.opaqueTokens = signs ? .everything : reads ? .reading : .nothing
        let names = settings.string("auth.algorithms", default: "RS256", "accepted signature algorithms, with commas")
        rules.algorithms = []
        for name in names.split(separator: ",") {
            guard let algorithm = TokenAlgorithm(rawValue: String(name)) else {
                settings.fail("auth.algorithms", "must be of RS256, PS256 and ES256")
                continue
            }
            rules.algorithms.insert(algorithm)
        }
        return TokenVerifier(rules: rules, keysURL: "\(issuer).well-known/jwks.json", transport: transport)
    }

    /// The services that run beside the service's own, and the server that answers for its API.
    public func services(
        _ context: DaemonContext,
        api: API,
        authenticator: any RequestAuthenticator,
        own: [any Service]
    ) -> [any Service] {
        let store = store
        return [
            pool,
            pulse,
            StepExchangeDeclaration(pulse: pulse, exchange: store.announcement.exchange),
            OutboxRelay(outbox: store.outbox, pool: pool, pulse: pulse),
            store.changes,
            PeriodicService(name: "sweep-replies", every: .seconds(3600)) { try await store.sweepReplies() },
        ] + own + [
            HTTPServer(
                configuration: http,
                name: context.name,
                rootURL: nil,
                apis: [api],
                authenticator: authenticator,
                health: context.health
            )
        ]
    }
}

extension String {
    /// The text without slashes at its end.
    fileprivate var trimmedSlash: String {
        var text = self[...]
        while text.last == "/" { text.removeLast() }
        return String(text)
    }
}
