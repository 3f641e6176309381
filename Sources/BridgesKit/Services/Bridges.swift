// SPDX-License-Identifier: MPL-2.0

package import APIServer
package import Core
package import HTTPClient
import Outbox
package import Postgres
package import Pulse
package import ServiceLifecycle

/// The bridges of a process, put together from their configuration.
package struct Bridges {
    /// What runs beside the server, in start order.
    package let services: [any Service]
    /// The addresses that webhooks are sent to.
    package let routes: [RawRoute]
    /// What operators ask.
    package let apis: [API]

    /// Reads the settings; nil if no bridge is configured, or if problems were noted.
    ///
    /// ## Configuration keys
    /// - `BRIDGES_CONFIG`: the path of the configuration file.
    package init?(
        settings: Settings,
        health: HealthRegistry,
        pool: PostgresPool,
        pulse: PulseConnection,
        transport: any HTTPTransport
    ) {
        guard let path = settings.optional("bridges.config", "the file that says which bridges run") else { return nil }
        let configuration: BridgesConfiguration
        let schemas: SchemaStore
        do {
            guard let text = SecretSources.contents(of: path) else {
                settings.fail("bridges.config", "names \(path), which cannot be read")
                return nil
            }
            schemas = try SchemaStore.locate()
            configuration = try BridgesConfiguration(
                text,
                schema: schemas.schema("bridges", "v1/configuration.json"),
                secrets: SecretSources(settings)
            )
        } catch let error as BridgesConfigurationError {
            let list = error.problems.map { "\n  \($0)" }.joined()
            settings.fail("bridges.config", "names \(path), in which this is wrong:\(list)")
            return nil
        } catch {
            settings.fail("bridges.config", "cannot be checked: \(error)")
            return nil
        }
        self.init(configuration, schemas: schemas, health: health, pool: pool, pulse: pulse, transport: transport)
    }

    init(
        _ configuration: BridgesConfiguration,
        schemas: SchemaStore,
        health: HealthRegistry,
        pool: PostgresPool,
        pulse: PulseConnection,
        transport: any HTTPTransport
    ) {
        let namespace = configuration.namespace ?? pulse.namespace
        let outbox = Outbox(schema: BridgesMigrations.schema)
        let deliveries = DeliveryStore(pool: pool, outbox: outbox, namespace: namespace)
        let repositories = RepositoryStore(pool: pool, outbox: outbox)
        var exchanges = configuration.sources.map { deliveries.exchange($0.name) }
        var services: [any Service] = []
        if let clock = configuration.clock {
            let exchange = BridgeExchange.name("clock", namespace: namespace)
            exchanges.append(exchange)
            services.append(
                ClockPublisher(
                    store: ClockStore(pool: pool, outbox: outbox, exchange: exchange),
                    catchUp: clock.catchUp
                )
            )
        }
        if !configuration.repositories.isEmpty {
            let exchange = BridgeExchange.name("hg", namespace: namespace)
            exchanges.append(exchange)
            services.append(
                PushlogPoller(
                    repositories: configuration.repositories,
                    store: repositories,
                    transport: transport,
                    exchange: exchange,
                    interval: configuration.pollInterval
                )
            )
        }
        for source in configuration.sources {
            guard let recovery = source.recovery else { continue }
            services.append(
                GitHubRecovery(
                    source: source.name,
                    settings: recovery,
                    store: RecoveryStore(pool: pool),
                    transport: transport,
                    retention: configuration.retention
                )
            )
        }
        let retention = configuration.retention
        services.append(
            PeriodicService(name: "sweep of deliveries", every: .seconds(60)) {
                var rounds = 0
                while try await deliveries.sweep(retention: retention) == 1000, rounds < 20 { rounds += 1 }
            }
        )
        health.register("bridges") {
            try await Migrator.verify(pool, schema: BridgesMigrations.schema, migrations: BridgesMigrations.all)
        }
        BridgeMetrics.describe()
        self.services =
            [BridgeExchanges(pulse: pulse, names: exchanges), OutboxRelay(outbox: outbox, pool: pool, pulse: pulse)]
            + services
        routes =
            configuration.sources.isEmpty
            ? [] : [WebhookReceiver(sources: configuration.sources, store: deliveries).route]
        apis = [BridgesAPI(deliveries: deliveries, repositories: repositories).api(schemas: schemas)]
    }
}

/// What the numbers of bridges mean.
enum BridgeMetrics {
    static func describe() {
        Metrics.describe("bridge_deliveries_total", "Requests with webhooks, by source and what became of them.")
        Metrics.describe(
            "bridge_delivery_seconds",
            "How long accepted webhooks took from the request's head to the commit.",
            buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5]
        )
        Metrics.describe("bridge_clock_minutes_total", "Minutes of the clock, announced or skipped as too old.")
        Metrics.describe("bridge_hg_pushes_total", "Pushes announced, by repository.")
        Metrics.describe("bridge_hg_polls_total", "Looks at pushlogs, by repository and outcome.")
        Metrics.describe("bridge_recoveries_total", "Deliveries that never arrived, asked for again or given up.")
        Metrics.describe("bridge_hg_resets_total", "Repositories found to be made anew.")
    }
}
