// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import DaemonCommand
import JSON
import Notices
import PipelineKit
import Postgres
import ReleasesKit
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
            try await ReleasesMigrations.migrate(pool)
        }
    }

    static func build(_ context: DaemonContext) throws -> [any Service] {
        let settings = context.settings
        let foundation = StepFoundation(context, service: "pipeline", defaultPort: 8012, needsTokens: false)
        let help = "addresses that steps may be at, with commas; what begins with one of them is allowed"
        let services = settings.urls("shipit.step.services", help)
        if services.isEmpty { _ = settings.required("shipit.step.services", help) }
        let tick = settings.duration(
            "shipit.tick.s",
            default: .seconds(1),
            in: .milliseconds(10)...(.seconds(60)),
            "how often to look for due pipelines when nothing wakes the service"
        )
        let lease = settings.duration(
            "shipit.lease.s",
            default: .seconds(30),
            in: .seconds(1)...(.seconds(600)),
            "how long a pipeline is left to a replica that says nothing"
        )
        let client = settings.optional("taskcluster.client.id", "the client that calls step services")
        let token = settings.optional("taskcluster.access.token", secret: true, "its access token")
        if (client == nil) != (token == nil) {
            settings.fail("taskcluster.client.id", "and TASKCLUSTER_ACCESS_TOKEN belong together")
        }
        let webhooks = settings.urls(
            "shipit.webhooks",
            "addresses that may be told of events, with commas; what begins with one of them is allowed"
        )
        let secret = settings.optional("shipit.webhook.secret", secret: true, "the key that webhooks are signed with")
        if !webhooks.isEmpty, secret == nil {
            settings.fail("shipit.webhook.secret", "is needed where SHIPIT_WEBHOOKS names addresses")
        }
        let perHour = settings.int(
            "shipit.notices.per.hour",
            default: 60,
            in: 1...100_000,
            "how many messages one person or room gets in an hour; what is more comes together in one"
        )
        let lists = groupLists(settings)
        let pretends = settings.bool(
            "shipit.enable.mock",
            default: false,
            "serve steps that only pretend, below /mock"
        )
        let (catalogue, place, login) = releases(settings, foundation)
        let manifests = settings.url(
            "shipit.xpi.manifests.url",
            default: "https://raw.githubusercontent.com/mozilla-extensions/xpi-manifest",
            "where the manifests of extensions are, by revision"
        )
        try settings.check()
        var credentials: Hawk.Credentials?
        if let client, let token { credentials = Hawk.Credentials(clientID: client, accessToken: token) }
        let service = PipelineService(
            store: foundation.store,
            client: StepClient(transport: foundation.transport, credentials: credentials),
            services: services,
            webhooks: webhooks,
            noticeLimit: NoticeStore.Limit(count: perHour, window: .seconds(3600)),
            lists: lists
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
        let runner = StepRunner(
            store: foundation.store,
            owner: foundation.owner,
            interval: tick,
            // As many as may wait for an answer at the same time, and others beside them.
            concurrency: StepClient.callLimit + 32,
            lease: lease,
            look: service.look
        )
        let authenticator = RemoteAuthenticator(
            rootURL: foundation.rootURL,
            transport: foundation.transport,
            expecting: { service.statusesUnderWay }
        )
        let releases = ReleaseService(
            pipelines: service,
            catalogue: catalogue,
            place: place,
            login: login,
            client: taskcluster,
            transport: foundation.transport,
            manifests: RemoteManifests(url: manifests, transport: foundation.transport)
        )
        let api = PipelineAPI(
            service: service,
            runner: runner,
            tokens: foundation.tokens,
            isPublic: foundation.isPublic,
            guardian: releases
        )
        let releasesAPI = ReleasesAPI(service: releases, tokens: foundation.tokens, authenticator: authenticator)
        return foundation.services(
            context,
            api: api.api(schemas: try SchemaStore.locate(), adding: releasesAPI.endpoints + (pretends ? api.mock : [])),
            authenticator: authenticator,
            own: [runner, StepListener(service: service, pulse: foundation.pulse)]
                + service.noticeServices(sender: sender, pulse: foundation.pulse)
                + releases.services(pulse: foundation.pulse)
        )
    }

    /// Who is told that a group's approval is needed.
    private static func groupLists(_ settings: Settings) -> GroupLists {
        let reminders = settings.duration(
            "shipit.signoff.reminders",
            default: .seconds(86_400),
            in: .zero...(.seconds(2_592_000)),
            "how often the lists of groups are reminded of an approval, 0 for never"
        )
        let text = settings.optional("shipit.group.lists", "whom to tell that a group's approval is needed, as JSON")
        guard let text else { return .none }
        if reminders > .zero, reminders < .seconds(60) {
            settings.fail("shipit.signoff.reminders", "must be 0, or a minute at least")
        }
        do {
            let seconds = Int(reminders.components.seconds)
            return try GroupLists(JSONValue(parsing: text), reminders: seconds > 0 ? seconds : nil)
        } catch let problem as GroupLists.Problem {
            settings.fail("shipit.group.lists", problem.description)
        } catch {
            settings.fail("shipit.group.lists", "must be JSON such as {\"releng\": \"release@example.com\"}")
        }
        return .none
    }

    /// What is released here, and with whose help.
    private static func releases(
        _ settings: Settings,
        _ foundation: StepFoundation
    ) -> (ProductCatalogue, ReleaseService.Place, LoginRules) {
        let path = settings.optional("shipit.products.file", "the products that are released here, as YAML or JSON")
        var catalogue = ProductCatalogue.empty
        if let path {
            do {
                catalogue = try ProductCatalogue(file: path, allowsLax: foundation.channel.allowsTests)
            } catch {
                settings.fail("shipit.products.file", "cannot be used: \(error)")
            }
        }
        let help = "the step service that carries out the actions of releases"
        let steps = settings.url("shipit.taskcluster.url", default: "http://127.0.0.1:8014", help)
        if path != nil { _ = settings.required("shipit.taskcluster.url", help) }
        let place = ReleaseService.Place(
            taskclusterSteps: steps,
            repositories: settings.url(
                "shipit.repositories.url",
                default: "https://hg.mozilla.org",
                "where the repositories of branches are"
            ),
            detailsExchange: "exchange/\(foundation.pulse.namespace)/shipit/api",
            archive: settings.url(
                "shipit.archive.url",
                default: "https://archive.mozilla.org/pub",
                "where what was released and its candidates are, in folders of products"
            )
        )
        let demandsFactor = settings.bool(
            "signoff.require.mfa",
            default: true,
            "demand a second factor of those who sign phases"
        )
        let longestLogin = settings.int(
            "signoff.max.auth.age.s",
            default: 43_200,
            in: 60...31_536_000,
            "how old the login of those who sign phases may be, in seconds"
        )
        let login = LoginRules(
            requiresSecondFactor: demandsFactor,
            longestLogin: demandsFactor ? longestLogin : nil
        )
        if !login.requiresSecondFactor, !foundation.channel.allowsTests {
            settings.fail("signoff.require.mfa", "can be false for APP_CHANNEL local, dev and testing alone")
        }
        return (catalogue, place, login)
    }
}

@main
enum Main {
    static func main() async { await DaemonCommand<ShipItPipeline>.main() }
}
