// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import DaemonCommand
import Notices
import PipelineKit
import Postgres
import ServiceLifecycle
import StepKit
import Taskcluster
import TaskclusterClient

/// The daemon that runs pipelines.
enum ShipItPipeline: DaemonDescription {
    static let name = "shipit-pipeline"
    static let abstract = "Runs pipelines of steps."
    static let discussion = """
        Starts the steps of pipelines at their services in the order in which they wait for each other, and follows them. \
        Any number of replicas share the work; a pipeline whose replica dies is taken over.
        """

    static var migrate: (@Sendable (DaemonContext) async throws -> Void)? {
        { context in
            let pool = PostgresPool(PostgresConfiguration(settings: context.settings, applicationName: name))
            try context.settings.check()
            try await PipelineMigrations.migrate(pool)
        }
    }

    static func build(_ context: DaemonContext) throws -> [any Service] {
        let settings = context.settings
        let foundation = StepFoundation(context, service: "pipeline", defaultPort: 8012, needsTokens: false)
        let services = settings.required(
            "shipit.step.services",
            "addresses that steps may be at, with commas; what begins with one of them is allowed"
        )
        let tick = settings.duration(
            "shipit.tick.s",
            default: .seconds(1),
            in: .milliseconds(10)...(.seconds(60)),
            "how often to look for due pipelines when nothing wakes the service"
        )
        let client = settings.optional("taskcluster.client.id", "the client that calls step services")
        let token = settings.optional("taskcluster.access.token", secret: true, "its access token")
        if (client == nil) != (token == nil) {
            settings.fail("taskcluster.client.id", "and TASKCLUSTER_ACCESS_TOKEN belong together")
        }
        let webhooks = settings.string(
            "shipit.webhooks",
            default: "",
            "addresses that may be told of events, with commas; what begins with one of them is allowed"
        )
        let secret = settings.optional("shipit.webhook.secret", secret: true, "the key that webhooks are signed with")
        if !webhooks.isEmpty, secret == nil {
            settings.fail("shipit.webhook.secret", "is needed where SHIPIT_WEBHOOKS names addresses")
        }
        try settings.check()
        var credentials: Hawk.Credentials?
        if let client, let token { credentials = Hawk.Credentials(clientID: client, accessToken: token) }
        let service = PipelineService(
            store: foundation.store,
            client: StepClient(transport: foundation.transport, credentials: credentials),
            services: Self.list(services),
            webhooks: Self.list(webhooks)
        )
        let taskcluster = TaskclusterClient(
            rootURL: foundation.rootURL,
            credentials: { [credentials] in credentials },
            transport: foundation.transport
        )
        let signing = secret.map {
            NoticeSender.Signing(
                secret: $0,
                signatureField: "X-Shipit-Signature",
                deliveryField: "X-Shipit-Delivery"
            )
        }
        let sender = NoticeSender(client: taskcluster, transport: foundation.transport, signing: signing)
        let runner = StepRunner(store: foundation.store, owner: foundation.owner, interval: tick, look: service.look)
        let api = PipelineAPI(
            service: service,
            runner: runner,
            tokens: foundation.tokens,
            isPublic: foundation.isPublic
        )
        return foundation.services(
            context,
            api: api.api(schemas: try SchemaStore.locate()),
            authenticator: RemoteAuthenticator(rootURL: foundation.rootURL, transport: foundation.transport),
            own: [runner, StepListener(service: service, pulse: foundation.pulse)]
                + service.noticeServices(sender: sender, pulse: foundation.pulse)
        )
    }

    private static func list(_ text: String) -> [String] {
        text.split(separator: ",").map { String($0.filter { $0 != " " }) }
    }
}

@main
enum Main {
    static func main() async { await DaemonCommand<ShipItPipeline>.main() }
}
