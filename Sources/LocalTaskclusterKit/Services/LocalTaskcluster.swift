// SPDX-License-Identifier: MPL-2.0
public import APIServer
import Core
public import HTTPClient
public import JSON
import Outbox
public import Postgres
public import Pulse
public import Schedules
public import ServiceLifecycle

/// What callers without credentials may do.
public enum AnonymousProfile: Sendable, Hashable {
    /// Read whatever is not secret.
    case `public`
    /// Nothing.
    case `private`
    /// What a file says, which holds a JSON list of scopes.
    case file(String)
}

/// All parts of the local deployment, put together.
public struct LocalTaskcluster: Sendable {
    /// What a deployment is told.
    public struct Configuration: Sendable {
        /// What clients put before every path.
        public var rootURL: String
        /// Where the bytes of artifacts are kept.
        public var blobDirectory: String
        /// How long a claim lasts.
        public var claimTimeout: Duration = .seconds(1200)
        /// How long `claimWork` waits for work.
        public var claimWorkTimeout: Duration = .seconds(20)
        /// How long after its deadline a task is ended.
        public var deadlineDelay: Duration = .seconds(2)
        /// How often expired things are removed.
        public var expiryInterval: Duration = .seconds(600)
        /// What new tasks may ask for.
        public var limits = TaskCreation()
        /// The bucket that holds the bytes of artifacts instead of the directory.
        public var bucket: S3BlobStore.Configuration?
        /// Where notifications go; by default mail becomes files below the blob directory.
        public var notifications: NotificationRoutes?
        /// Where hooks-service listens, if hooks are part of the deployment.
        public var hooksUpstream: String?
        /// Where the pulse-listener with the bridges listens, if bridges are part of the deployment.
        public var bridgesUpstream: String?
        /// The seed: a path, or the JSON itself.
        public var seed: String?
        /// The secret all keys are made from; made and stored at the first start if absent.
        public var secretKey: String?
        /// Keys for tokens and secrets beside the one made from the secret: `[{id, algo, key}]`, the last one seals.
        public var cryptoKeys: JSONValue = .array([])
        /// What callers without credentials may do.
        public var anonymous: AnonymousProfile = .public
        /// The part of the queue's exchange names before their last word.
        public var exchangePrefix = "exchange/taskcluster-queue/v1/"

        /// Describes a deployment with the defaults of everything else.
        public init(rootURL: String, blobDirectory: String) {
            self.rootURL = rootURL
            self.blobDirectory = blobDirectory
        }
    }

    /// The queue's state.
    public let store: QueueStore
    /// The waiting workers.
    public let dispatch: ClaimDispatch
    /// Clients and roles.
    public let directory: DirectoryStore
    /// The APIs that are served.
    public let apis: [API]
    /// The addresses of blobs.
    public let rawRoutes: [RawRoute]
    /// The neighbours on the same origin.
    public let proxies: [ProxyRoute]
    /// What runs beside the server, in start order.
    public let services: [any Service]
    /// What must stop before the server does, because it sends waiting workers away; start it after the server.
    public let release: any Service

    /// Puts everything together, without any input or output.
    public init(
        _ configuration: Configuration,
        pool: PostgresPool,
        pulse: PulseConnection?,
        transport: any HTTPTransport,
        schemas: SchemaStore,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        let dispatch = ClaimDispatch()
        let outbox = Outbox(schema: "tcl")
        let resolved = Signal()
        let bridge = WakeBridge(pool: pool, dispatch: dispatch)
        let store = QueueStore(
            pool: pool,
            messages: QueueMessages(prefix: configuration.exchangePrefix),
            observer: QueueObserver(
                pendingAdded: { queue, count in
                    dispatch.wake(queue, count: count)
                    bridge.note(queue)
                },
                taskResolved: { resolved.notify() },
                messagesAdded: { outbox.wake() }
            ),
            claimTimeout: configuration.claimTimeout,
            rootURL: configuration.rootURL
        )
        let exchanges = ExchangeNames(queuePrefix: configuration.exchangePrefix)
        let directory = DirectoryStore(
            pool: pool,
            cryptoKeys: configuration.cryptoKeys,
            messages: AuthMessages(prefix: exchanges.authPrefix),
            messagesAdded: { outbox.wake() },
            now: now
        )
        let audit = AuditStore(pool: pool)
        let activity = WorkerActivity(pool: pool)
        let addresses = BlobAddresses(rootURL: configuration.rootURL) { directory.signingKey }
        let files = FileBlobStore(
            pool: pool,
            directory: configuration.blobDirectory,
            addresses: addresses,
            now: now
        )
        let blobs: any BlobStore =
            configuration.bucket.flatMap {
                S3BlobStore($0, transport: transport, scratch: configuration.blobDirectory, now: now)
            } ?? files
        let objects = ObjectStore(pool: pool)
        let notifications = NotificationStore(pool: pool)
        let notified = Signal()
        let routes =
            configuration.notifications ?? NotificationRoutes(mailDirectory: "\(configuration.blobDirectory)/mail")
        let herald = TaskHerald(
            pool: pool,
            routes: routes,
            rootURL: configuration.rootURL,
            exchange: exchanges.notification,
            outbox: outbox,
            notified: notified
        )
        let sweeper = ExpirySweeper(
            pool: pool,
            store: store,
            objects: objects,
            blobs: blobs,
            directory: directory,
            audit: audit,
            notifications: notifications,
            now: now
        )
        let queue = QueueAPI(
            store: store,
            dispatch: dispatch,
            directory: directory,
            activity: activity,
            workers: WorkerStore(pool: pool),
            blobs: blobs,
            objects: objects,
            limits: configuration.limits,
            claimWorkTimeout: configuration.claimWorkTimeout,
            now: now
        )
        self.store = store
        self.dispatch = dispatch
        release = ClaimRelease(dispatch: dispatch)
        self.directory = directory
        apis = [
            queue.api(schemas: schemas), AuthAPI(directory: directory, audit: audit, now: now).api(schemas: schemas),
            IndexAPI(
                store: IndexStore(pool: pool),
                directory: directory,
                rootURL: configuration.rootURL,
                now: now
            ).api(schemas: schemas),
            SecretsAPI(pool: pool, directory: directory, now: now).api(schemas: schemas),
            ObjectAPI(store: objects, blobs: blobs, now: now).api(schemas: schemas),
            NotifyAPI(store: notifications, routes: routes, wake: notified, now: now) { key, message in
                let body: JSONValue = ["version": 1, "message": message]
                let news = PulseMessage(
                    exchange: exchanges.notification,
                    routingKey: "primary.\(key)",
                    payload: body
                )
                try await pool.transaction { try await outbox.add([news], on: $0) }
                outbox.wake()
            }.api(schemas: schemas),
            PurgeCacheAPI(pool: pool, now: now).api(schemas: schemas),
            WorkerManagerAPI(store: store, now: now).api(schemas: schemas),
        ]
        rawRoutes = files.routes
        let hooks = configuration.hooksUpstream.map { upstream in
            ["/api/hooks/", "/references/hooks/"].map {
                ProxyRoute(
                    prefix: $0,
                    upstream: upstream,
                    transport: transport,
                    references: $0 == "/references/hooks/" ? ["hooks/v1/api.json", "hooks/v1/exchanges.json"] : []
                )
            }
        }
        let bridges = configuration.bridgesUpstream.map { upstream in
            [
                "/api/bridges/", "/references/bridges/", "/webhooks/", "/api/triggers/", "/references/triggers/",
                "/codereview/",
            ].map {
                ProxyRoute(
                    prefix: $0,
                    upstream: upstream,
                    service: "bridges",
                    transport: transport,
                    references: $0 == "/references/bridges/" ? ["bridges/v1/api.json"] : []
                )
            }
        }
        proxies = (hooks ?? []) + (bridges ?? [])
        let memory = CrowdMemory()
        let background: [any Service] = [
            DirectoryKeeper(directory: directory, pool: pool, configuration: configuration, now: now),
            QueueSweeper(store: store, resolved: resolved, deadlineDelay: configuration.deadlineDelay, now: now) {
                try await herald.announce(now: $0)
            },
            PeriodicService(name: "worker activity", every: .seconds(2)) { try await activity.flush() },
            PeriodicService(name: "claim probe", every: .seconds(5), jitter: 0.2) {
                // Counted before all of them look again.
                QueueMetrics.waiting.record(dispatch.waiting)
                memory.settle(dispatch.waiting)
                dispatch.probe()
            },
            PeriodicService(name: "expiry", every: configuration.expiryInterval) { try await sweeper.sweep() },
            PeriodicService(name: "upload remains", every: .seconds(3600)) { files.removeRemains() },
            PeriodicService(name: "sealing", every: .seconds(60)) {
                while try await directory.sealAgain() > 0 {}
            },
            NotificationCourier(
                store: notifications,
                routes: routes,
                transport: transport,
                wake: notified,
                now: now
            ),
            bridge,
        ]
        let messaging: [any Service] =
            if let pulse {
                [
                    pulse, ExchangeDeclarations(pulse: pulse, exchanges: exchanges.all),
                    OutboxRelay(outbox: outbox, pool: pool, pulse: pulse),
                ]
            } else {
                [
                    PeriodicService(name: "unpublished messages", every: .seconds(60)) {
                        _ = try await pool.execute("delete from tcl.outbox where created < now() - interval '1 hour'")
                    }
                ]
            }
        services = [pool] + messaging + background
    }

    /// Brings the tables up to date.
    public static func migrate(_ pool: PostgresPool) async throws {
        let migrations = [
            Migration(version: 1, name: "V0001_tcl_queue", bytes: PackageResources.V0001_tcl_queue_sql),
            Migration(version: 2, name: "V0002_tcl_auth", bytes: PackageResources.V0002_tcl_auth_sql),
            Migration(version: 3, name: "V0003_tcl_workers", bytes: PackageResources.V0003_tcl_workers_sql),
            Migration(version: 4, name: "V0004_tcl_objects", bytes: PackageResources.V0004_tcl_objects_sql),
            Migration(version: 5, name: "V0005_tcl_notify", bytes: PackageResources.V0005_tcl_notify_sql),
            Migration(version: 6, name: "V0006_tcl_notices", bytes: PackageResources.V0006_tcl_notices_sql),
        ]
        _ = try await Migrator.migrate(pool, schema: "tcl", migrations: migrations)
    }
}
