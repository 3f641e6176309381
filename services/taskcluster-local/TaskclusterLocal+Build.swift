// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import LocalTaskclusterKit
import Postgres
import Pulse
import ServiceLifecycle

extension TaskclusterLocal {
    static func build(_ context: DaemonContext) throws -> [any Service] {
        let settings = context.settings
        let configuration = configuration(settings)
        let server = HTTPServerConfiguration(settings: settings, defaultPort: 8080)
        var database = PostgresConfiguration(settings: settings, applicationName: name)
        // A queue that was empty this morning may hold a hundred thousand tasks at noon.
        database.looksUpByKey = true
        let broker =
            settings.optional("amqp.url", secret: true, "broker for events; without one they are dropped after an hour")
            .map { _ in PulseConfiguration(settings: settings) }
        try settings.check()
        let pool = PostgresPool(database)
        let pulse = broker.map { PulseConnection($0, name: name) }
        context.health.register("database") { try await pool.checkHealth() }
        if let pulse { context.health.register("broker") { try await pulse.checkHealth() } }
        let local = LocalTaskcluster(
            configuration,
            pool: pool,
            pulse: pulse,
            transport: CurlTransport(),
            schemas: try SchemaStore.locate()
        )
        let directory = local.directory
        context.health.register("directory") { try directory.checkLoaded() }
        return local.services + [
            HTTPServer(
                configuration: server,
                name: name,
                rootURL: configuration.rootURL,
                apis: local.apis,
                authenticator: local.directory,
                health: context.health,
                raw: local.rawRoutes,
                proxies: local.proxies
            ),
            local.release,
        ]
    }

    private static func configuration(_ settings: Settings) -> LocalTaskcluster.Configuration {
        var configuration = LocalTaskcluster.Configuration(
            rootURL: settings.rootURL("taskcluster.root.url", default: "http://localhost:8080", "what clients use"),
            blobDirectory: settings.string("tcl.blob.dir", default: "blobs", "directory for artifacts")
        )
        configuration.seed = settings.optional("tcl.seed", secret: true, "file of clients and roles to create")
        configuration.secretKey = settings.optional("tcl.secret.key", secret: true, "what all keys are made from")
        if let keys = settings.optional("tcl.crypto.keys", secret: true, "further keys for tokens and secrets") {
            do {
                configuration.cryptoKeys = try JSONValue(parsing: keys)
                _ = try KeyRing(derived: [], configured: configuration.cryptoKeys)
            } catch {
                settings.fail("tcl.crypto.keys", "must be a JSON list of {id, algo, key}: \(error)")
            }
        }
        configuration.hooksUpstream = settings.url("tcl.hooks.upstream", "base URL of hooks-service")
        configuration.bridgesUpstream = settings.url(
            "tcl.bridges.upstream",
            "base URL of the pulse-listener with bridges"
        )
        configuration.claimTimeout = settings.duration(
            "tcl.claim.timeout",
            default: .seconds(1200),
            in: .seconds(1)...(.seconds(86_400)),
            "how long a claim lasts"
        )
        configuration.claimWorkTimeout = settings.duration(
            "tcl.claim.work.timeout",
            default: .seconds(20),
            in: .zero...(.seconds(25)),
            "how long claimWork waits"
        )
        configuration.deadlineDelay = settings.duration(
            "tcl.deadline.delay",
            default: .seconds(2),
            in: .zero...(.seconds(600)),
            "how long after its deadline a task is ended"
        )
        configuration.expiryInterval = settings.duration(
            "tcl.expiry.interval",
            default: .seconds(600),
            in: .seconds(1)...(.seconds(86_400)),
            "how often expired things are removed"
        )
        let days = settings.int("tcl.max.deadline.days", default: 5, in: 1...365, "how far ahead a deadline may lie")
        configuration.limits = TaskCreation(
            longestDeadline: .seconds(days * 86_400),
            mostDependencies: settings.int(
                "tcl.max.dependencies",
                default: 10_000,
                in: 0...10_000,
                "how many tasks one task may wait for"
            )
        )
        configuration.bucket = bucket(settings)
        configuration.notifications = notifications(settings, blobDirectory: configuration.blobDirectory)
        configuration.exchangePrefix = settings.string(
            "tcl.exchange.prefix",
            default: "exchange/taskcluster-queue/v1/",
            "part of the exchange names before their last word"
        )
        switch settings.string("tcl.anonymous.profile", default: "public", "public, private or the path of a file") {
        case "public": configuration.anonymous = .public
        case "private": configuration.anonymous = .private
        case let path where path.contains("/"): configuration.anonymous = .file(path)
        default: settings.fail("tcl.anonymous.profile", "must be public, private or the path of a file")
        }
        return configuration
    }

    /// The S3-compatible bucket for artifacts, if one is configured.
    private static func bucket(_ settings: Settings) -> S3BlobStore.Configuration? {
        guard let endpoint = settings.optional("tcl.s3.endpoint", "S3-compatible server for artifacts") else {
            return nil
        }
        let bucket = S3BlobStore.Configuration(
            endpoint: endpoint,
            bucket: settings.required("tcl.s3.bucket", "bucket for artifacts"),
            region: settings.string("tcl.s3.region", default: "us-east-1", "region of the bucket"),
            accessKeyID: settings.required("tcl.s3.access.key.id", "name of the key for the bucket"),
            secretKey: settings.required("tcl.s3.secret.access.key", secret: true, "key for the bucket")
        )
        if !S3BlobStore.isServer(endpoint) {
            settings.fail("tcl.s3.endpoint", "must be http:// or https:// and a host, without a path")
        }
        return bucket
    }

    /// Where notifications go.
    private static func notifications(_ settings: Settings, blobDirectory: String) -> NotificationRoutes {
        var routes = NotificationRoutes(
            mailDirectory: settings.string(
                "tcl.mail.dir",
                default: "\(blobDirectory)/mail",
                "directory for mail that no server takes"
            )
        )
        routes.sender = settings.string("tcl.mail.from", default: routes.sender, "who sends mail")
        let quiet = settings.string(
            "tcl.notify.quiet.reasons",
            default: "canceled",
            "reasons of exceptions that nobody is told about, with commas"
        )
        routes.quietReasons = Set(quiet.split(separator: ",").map { String($0.filter { $0 != " " }) })
        if let host = settings.optional("tcl.smtp.host", "server that takes mail; without one, mail becomes files") {
            routes.relay = MailRelay(
                host: host,
                port: settings.int("tcl.smtp.port", default: 25, in: 1...65_535, "port of the mail server"),
                user: settings.optional("tcl.smtp.user", "whom to log in as at the mail server"),
                password: settings.optional("tcl.smtp.password", secret: true, "password for the mail server")
            )
        }
        if let url = settings.url("tcl.matrix.url", "base URL of a Matrix server") {
            routes.matrix = (url, settings.required("tcl.matrix.token", secret: true, "access token for Matrix"))
        }
        if let url = settings.url("tcl.slack.url", "base URL of Slack's methods, such as https://slack.com/api") {
            routes.slack = (url, settings.required("tcl.slack.token", secret: true, "access token for Slack"))
        }
        return routes
    }
}
