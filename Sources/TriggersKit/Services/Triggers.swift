// SPDX-License-Identifier: MPL-2.0

package import APIServer
import BridgesKit
package import Core
package import HTTPClient
package import HooksKit
import JSON
import Metrics
import Notices
package import Postgres
package import Pulse
package import ServiceLifecycle
package import TaskclusterClient

/// The triggers of a process, put together from their configuration.
package struct Triggers {
    /// What triggers need of the process they run in.
    package struct Surroundings {
        let pool: PostgresPool
        let pulse: PulseConnection
        let transport: any HTTPTransport
        let client: TaskclusterClient
        let door: HookDoor
        /// Who triggers hooks, as templates see it.
        let clientID: String
        let rootURL: String
        /// The longest pause between two attempts.
        let longestPause: Duration
        /// What queues are made as.
        let queueKind: PulseQueue.Kind

        package init(
            pool: PostgresPool,
            pulse: PulseConnection,
            transport: any HTTPTransport,
            client: TaskclusterClient,
            door: HookDoor,
            clientID: String,
            rootURL: String,
            longestPause: Duration,
            queueKind: PulseQueue.Kind
        ) {
            self.pool = pool
            self.pulse = pulse
            self.transport = transport
            self.client = client
            self.door = door
            self.clientID = clientID
            self.rootURL = rootURL
            self.longestPause = longestPause
            self.queueKind = queueKind
        }
    }

    /// What runs beside the server, in start order.
    package let services: [any Service]
    /// The address that Harbormaster calls.
    package let routes: [RawRoute]
    /// What operators ask.
    package let apis: [API]

    /// Reads the settings; nil if no trigger is configured, or if problems were noted.
    ///
    /// ## Configuration keys
    /// - `TRIGGERS_CONFIG`: the path of the configuration file.
    package init?(settings: Settings, health: HealthRegistry, _ surroundings: Surroundings) {
        guard let path = settings.optional("triggers.config", "the file that says which triggers run") else {
            return nil
        }
        do {
            guard let text = SecretSources.contents(of: path) else {
                settings.fail("triggers.config", "names \(path), which cannot be read")
                return nil
            }
            let schemas = try SchemaStore.locate()
            let configuration = try TriggersConfiguration(
                text,
                schema: schemas.schema("triggers", "v1/configuration.json"),
                secrets: SecretSources(settings)
            )
            try self.init(configuration, schemas: schemas, health: health, surroundings)
        } catch let error as TriggersConfigurationError {
            let list = error.problems.map { "\n  \($0)" }.joined()
            settings.fail("triggers.config", "names \(path), in which this is wrong:\(list)")
            return nil
        } catch {
            settings.fail("triggers.config", "cannot be checked: \(error)")
            return nil
        }
    }

    init(
        _ configuration: TriggersConfiguration,
        schemas: SchemaStore,
        health: HealthRegistry,
        _ surroundings: Surroundings
    ) throws {
        let pool = surroundings.pool
        let runs = RunStore(pool: pool)
        let letters = LetterStore(pool: pool)
        let places = PlaceStore(pool: pool)
        let tasks = TaskStore(pool: pool)
        let uses = UseStore(pool: pool)
        let wake = Signal()
        let phabricator = configuration.phabricator.map { settings in
            Phabricator(conduit: Conduit(url: settings.url, token: settings.token, transport: surroundings.transport))
        }
        var services: [any Service] = [
            RunWorker(
                triggers: configuration.triggers,
                runs: runs,
                resolver: Resolver(client: surroundings.client, phabricator: phabricator),
                door: surroundings.door,
                clientID: surroundings.clientID,
                visibility: configuration.phabricator?.visibility ?? RunWorker.Visibility(),
                longestPause: surroundings.longestPause,
                wake: wake
            ),
            TaskWatch(tasks: tasks, places: places, states: TaskStates(client: surroundings.client)),
            TaskNews(
                tasks: tasks,
                places: places,
                pulse: surroundings.pulse,
                queue: PulseQueue(
                    "queue/\(surroundings.pulse.namespace)/trigger-tasks",
                    kind: surroundings.queueKind,
                    maxLength: 100_000,
                    // What was not heard is asked for, so nothing is lost with it.
                    expires: .seconds(86_400)
                )
            ),
        ]
        var routes: [RawRoute] = []
        let ofDiffs = configuration.triggers.filter(\.needsPhabricator)
        if let settings = configuration.phabricator, let phabricator {
            services.append(
                DiffPoller(
                    triggers: ofDiffs,
                    phabricator: phabricator,
                    places: places,
                    runs: runs,
                    interval: settings.interval,
                    wake: wake
                )
            )
            if !settings.webhookSecrets.isEmpty {
                let secrets = settings.webhookSecrets
                routes.append(CodeReviewReceiver(triggers: ofDiffs, secrets: secrets, runs: runs, wake: wake).route)
            }
        }
        let subscribed = configuration.triggers.map { ($0, $0.subscription(surroundings)) }
        let used = subscribed.flatMap { $0.uses($1) }
        let consumption = Consumption(subscribed.compactMap { $1?.queue.name })
        services.append(
            PeriodicService(name: "what triggers use", every: UseStore.interval) { try await uses.note(used) }
        )
        for (trigger, subscription) in subscribed {
            guard let subscription else { continue }
            services.append(
                MessageIntake(
                    trigger: trigger,
                    subscription: subscription,
                    pulse: surroundings.pulse,
                    runs: runs,
                    letters: letters,
                    wake: wake,
                    uses: uses,
                    consumption: consumption
                )
            )
        }
        if let report = configuration.report {
            let notices = NoticeStore(schema: TriggersMigrations.schema, pool: pool)
            let sender = NoticeSender(
                client: surroundings.client,
                transport: surroundings.transport,
                signing: nil,
                mailTemplate: "fullscreen"
            )
            services += [
                Reporter(
                    addresses: report.addresses,
                    interval: report.interval,
                    rootURL: surroundings.rootURL,
                    places: places,
                    tasks: tasks,
                    runs: runs,
                    letters: letters,
                    uses: uses,
                    notices: notices
                ),
                NoticeCourier(store: notices, sender: sender),
            ]
        }
        services.append(
            Self.housekeeping(runs, letters, tasks, uses, NoticeStore(schema: TriggersMigrations.schema, pool: pool))
        )
        health.register("triggers") {
            try await Migrator.verify(pool, schema: TriggersMigrations.schema, migrations: TriggersMigrations.all)
            try consumption.check()
        }
        TriggerMetrics.describe()
        self.services = services
        self.routes = routes
        apis = [
            try TriggersAPI(
                triggers: configuration.triggers,
                runs: runs,
                letters: letters,
                removal: TriggerRemoval(uses: uses, runs: runs, pulse: surroundings.pulse),
                wake: wake
            )
            .api(schemas: schemas)
        ]
    }

    /// How long it is remembered that something was dealt with.
    private static let memory = Duration.seconds(400 * 86_400)

    private static func housekeeping(
        _ runs: RunStore,
        _ letters: LetterStore,
        _ tasks: TaskStore,
        _ uses: UseStore,
        _ notices: NoticeStore
    ) -> any Service {
        let backlog = Gauge(label: "triggers_waiting")
        let age = Gauge(label: "triggers_waiting_seconds")
        let leftovers = Gauge(label: "triggers_leftovers")
        return PeriodicService(name: "housekeeping of triggers", every: .seconds(30)) {
            let waiting = try await runs.backlog()
            backlog.record(waiting.count)
            age.record(waiting.age)
            leftovers.record(Set(try await uses.leftovers().map(\.use.trigger)).count)
            try await letters.expire()
            try await tasks.giveUp()
            try await notices.sweep()
            var rounds = 0
            while try await runs.sweep(olderThan: memory) == 1000, rounds < 20 { rounds += 1 }
        }
    }
}

extension Trigger {
    /// The messages it is about, if it is about any.
    fileprivate func subscription(_ surroundings: Triggers.Surroundings) -> PulseSubscription? {
        let binding: PulseBinding
        switch source {
        case .mozReview:
            binding = PulseBinding(exchange: "exchange/mozreview/", routingKeyPattern: "mozreview.commits.published")
        case .coverage(let rule):
            binding = PulseBinding(
                exchange: "exchange/taskcluster-queue/v1/task-group-resolved",
                routingKeyPattern: rule.routingKey
            )
        case .phabricator, .risk: return nil
        }
        let queue = PulseQueue(
            TriggerRemoval.queue(of: name, namespace: surroundings.pulse.namespace),
            kind: surroundings.queueKind
        )
        return PulseSubscription(queue: queue, bindings: [binding], prefetch: 20)
    }

    /// What it has at the broker.
    func uses(_ subscription: PulseSubscription?) -> [TriggerUse] {
        guard let subscription else { return [TriggerUse(trigger: name)] }
        return subscription.bindings().map { binding in
            TriggerUse(
                trigger: name,
                queue: subscription.queue.name,
                exchange: binding.exchange,
                routingKey: binding.routingKeyPattern
            )
        }
    }
}
