// SPDX-License-Identifier: MPL-2.0

package import Core
import Glibc
package import HTTPClient
import Logging
package import Notices
package import Outbox
package import Postgres
package import Pulse
package import ServiceLifecycle
import Taskcluster
package import TaskclusterClient

/// What both daemons of roller are made of.
///
/// ## Configuration keys
/// - `DATABASE_URL`, `AMQP_URL`: where state is kept and messages go.
/// - `TASKCLUSTER_ROOT_URL`, `TASKCLUSTER_CLIENT_ID`, `TASKCLUSTER_ACCESS_TOKEN`: the deployment, and who roller is there.
/// - `CREDENTIALS_DIR`: the folder of credentials.
/// - `ROLLER_EXCHANGE_NAMESPACE`: the middle part of the names of exchanges and queues; default
///   `taskcluster-roller`, as the references say.
package struct RollerFoundation {
    package let pool: PostgresPool
    package let pulse: PulseConnection
    package let transport: CurlTransport
    package let rootURL: String
    package let client: TaskclusterClient
    package let outbox: Outbox
    package let exchanges: RollerExchanges
    package let jobs: JobStore
    package let inventory: InventoryStore
    package let credentials: CredentialStore
    package let notifications: NotificationSettings
    private let courier: NoticeCourier

    /// Reads the settings that the daemons share.
    package init(_ context: DaemonContext) {
        Self.forbidCoreDumps()
        let settings = context.settings
        rootURL = settings.rootURL("taskcluster.root.url", "the deployment whose workers are looked after")
        let clientID = settings.required("taskcluster.client.id", "the credentials for mails and quarantines")
        let accessToken = settings.required("taskcluster.access.token", secret: true, "the key of these credentials")
        let certificate = settings.optional("taskcluster.certificate", secret: true, "their certificate, if temporary")
        let directory = settings.optional("credentials.dir", "the folder of credentials of controllers")
        let namespace = settings.string(
            "roller.exchange.namespace",
            default: "taskcluster-roller",
            "the middle part of the names of exchanges and queues"
        )
        notifications = NotificationSettings(settings: settings)
        let secret = settings.optional("notify.webhook.secret", secret: true, "the key that webhooks are signed with")
        let channel = settings.optional("notify.irc.channel", "has no effect any more")
        pool = PostgresPool(PostgresConfiguration(settings: settings, applicationName: context.name))
        pulse = PulseConnection(PulseConfiguration(settings: settings), name: context.name)
        transport = CurlTransport()
        if channel != nil {
            Logger.current.warning("NOTIFY_IRC_CHANNEL has no effect: use NOTIFY_MATRIX_ROOM or NOTIFY_SLACK_CHANNEL")
        }
        let identity = Hawk.Credentials(clientID: clientID, accessToken: accessToken, certificate: certificate)
        client = TaskclusterClient(rootURL: rootURL, credentials: { identity }, transport: transport)
        outbox = Outbox(schema: RollerMigrations.schema)
        exchanges = RollerExchanges(namespace: namespace)
        jobs = JobStore(pool: pool, outbox: outbox, exchanges: exchanges, notifications: notifications)
        inventory = InventoryStore(pool: pool)
        credentials = CredentialStore(directory: directory)
        courier = NoticeCourier(
            store: NotificationStore(pool: pool),
            sender: Self.sender(client, transport, webhookSecret: secret)
        )
    }

    /// Mails and chat go through the notify service, webhooks are signed as GitHub signs its own.
    package static func sender(
        _ client: TaskclusterClient,
        _ transport: any HTTPTransport,
        webhookSecret: String?
    ) -> NoticeSender {
        NoticeSender(
            client: client,
            transport: transport,
            signing: NoticeSender.Signing(
                secret: webhookSecret,
                signatureField: "X-Hub-Signature-256",
                deliveryField: "X-Roller-Delivery"
            ),
            mailTemplate: "fullscreen"
        )
    }

    /// Credentials of controllers pass through the memory of a daemon: it must not end in a file.
    private static func forbidCoreDumps() {
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        if setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none) != 0 {
            Logger.current.warning("core dumps are not switched off", metadata: ["errno": "\(errno)"])
        }
    }

    /// What runs in every daemon of roller, in start order.
    package var services: [any Service] {
        [
            pool, pulse, RollerExchangeDeclarations(pulse: pulse, exchanges: exchanges),
            OutboxRelay(outbox: outbox, pool: pool, pulse: pulse), courier,
        ]
    }
}
