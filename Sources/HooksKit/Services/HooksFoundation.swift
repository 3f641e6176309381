// SPDX-License-Identifier: MPL-2.0

package import Core
package import HTTPClient
package import Postgres
package import Pulse
import ServiceLifecycle
import Taskcluster
package import TaskclusterClient

/// What all three daemons of hooks are made of: the stores, the client of the queue, and the dispatcher of fires.
package struct HooksFoundation {
    package let pool: PostgresPool
    package let transport: CurlTransport
    package let rootURL: String
    /// Whose credentials these daemons have.
    package let clientID: String
    package let client: TaskclusterClient
    /// The stores, and what makes hooks fire.
    package let firing: FiringParts
    package let pollingDelay: Duration
    /// The middle part of the names of the exchanges that announce changes of hooks.
    package let exchangeNamespace: String

    /// Reads the settings that the daemons share.
    package init(_ context: DaemonContext) throws {
        let settings = context.settings
        rootURL = settings.rootURL("taskcluster.root.url", "the deployment whose queue gets the tasks")
        clientID = settings.required("taskcluster.client.id", "the credentials that tasks are created with")
        let accessToken = settings.required("taskcluster.access.token", secret: true, "the key of these credentials")
        let certificate = settings.optional("taskcluster.certificate", secret: true, "their certificate, if temporary")
        pollingDelay = settings.duration(
            "hooks.polling.delay",
            default: .seconds(60),
            in: .milliseconds(100)...(.seconds(3600)),
            "the longest time between two looks at the schedules and between two attempts to create a task"
        )
        exchangeNamespace = settings.string(
            "hooks.exchange.namespace",
            default: "taskcluster-hooks",
            "the middle part of the names of the exchanges for changes of hooks"
        )
        let box = try Self.box(settings)
        var database = PostgresConfiguration(settings: settings, applicationName: context.name)
        database.looksUpByKey = true
        pool = PostgresPool(database)
        transport = CurlTransport()
        let credentials = Hawk.Credentials(clientID: clientID, accessToken: accessToken, certificate: certificate)
        client = TaskclusterClient(rootURL: rootURL, credentials: { credentials }, transport: transport)
        firing = FiringParts(
            pool: pool,
            box: box,
            namespace: exchangeNamespace,
            client: client,
            longestPause: pollingDelay
        )
        let pool = pool
        context.health.register("database") { try await pool.checkHealth() }
    }

    private static func box(_ settings: Settings) throws -> SecretBox {
        let text = settings.required("db.crypto.keys", secret: true, "keys for secrets in the database, as a JSON list")
        do {
            return try SecretBox(configuration: text)
        } catch {
            if !text.isEmpty { settings.fail("db.crypto.keys", error.description) }
            // Never used: the recorded problem ends the process before anything is stored.
            return SecretBox.unusable
        }
    }
}

/// Declares the exchanges for changes of hooks, as soon as the broker can be reached.
package struct HookExchangeDeclarations: Service {
    let pulse: PulseConnection
    let namespace: String

    package init(pulse: PulseConnection, namespace: String) {
        self.pulse = pulse
        self.namespace = namespace
    }

    package func run() async throws {
        await cancelWhenGracefulShutdown {
            var attempt = 1
            for name in HookExchanges.names {
                while !Task.isCancelled {
                    do {
                        try await pulse.declareExchange(HookExchanges.exchange(name, namespace: namespace))
                        break
                    } catch {
                        attempt += 1
                        try? await Task.sleep(for: RetryPolicy.reconnect.delay(before: attempt))
                    }
                }
            }
        }
        try? await gracefulShutdown()
    }
}
