// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import DaemonCommand
import Postgres
import ServiceLifecycle
import StepKit
import Taskcluster
import TaskclusterClient
import TaskclusterStepKit

/// The daemon whose steps are tasks.
enum ShipItTaskcluster: DaemonDescription {
    static let name = "shipit-taskcluster"
    static let abstract = "Makes and follows groups of tasks."
    static let discussion = """
        A step service: each step is a group of tasks that exists, a hook or an action that is triggered, or a task that is \
        created, and ends when all tasks have. Nothing is triggered twice. Any number of replicas share the work.
        """

    static var migrate: (@Sendable (DaemonContext) async throws -> Void)? {
        { context in
            let pool = PostgresPool(PostgresConfiguration(settings: context.settings, applicationName: name))
            try context.settings.check()
            try await TaskclusterMigrations.migrate(pool)
        }
    }

    static func build(_ context: DaemonContext) throws -> [any Service] {
        let settings = context.settings
        let foundation = StepFoundation(context, service: "taskcluster", defaultPort: 8014, needsTokens: false)
        let credentials = Hawk.Credentials(
            clientID: settings.required("taskcluster.client.id", "the client that triggers, creates and cancels"),
            accessToken: settings.required("taskcluster.access.token", secret: true, "its access token")
        )
        var pace = TaskclusterService.Pace()
        let range: ClosedRange<Duration> = .milliseconds(100)...(.seconds(3600))
        let eager = settings.duration(
            "shipit.poll.begin.s",
            default: pace.eager,
            in: range,
            "how often a task that makes others is asked about, at first"
        )
        let patient = settings.duration(
            "shipit.poll.s",
            default: pace.patient.lowerBound,
            in: range,
            "how often a group is listed, at first, when nothing is heard of it"
        )
        pace.eager = eager
        pace.patient = patient...max(patient, pace.patient.upperBound)
        let namesTasks = settings.bool(
            "shipit.hooks.name.tasks",
            default: false,
            "the hooks service gives tasks the id that a payload's taskId names, so that triggers can be repeated"
        )
        try settings.check()
        let bus = QueueListener(pulse: foundation.pulse)
        var steps = TaskclusterService(
            store: foundation.store,
            client: TaskclusterClient(
                rootURL: foundation.rootURL,
                credentials: { credentials },
                transport: foundation.transport,
                // The runner comes back by itself.
                retry: RetryPolicy(attempts: 1, base: .zero, maximum: .zero)
            ),
            bus: bus,
            hooksNameTasks: namesTasks,
            pace: pace
        )
        steps.aliasDeletesAll = foundation.deletesAllAtAlias
        let service = steps
        bus.tell { group, task in try await service.heard(group: group, task: task) }
        let api = TaskclusterAPI(service: service, tokens: foundation.tokens, isPublic: foundation.isPublic)
        return foundation.services(
            context,
            api: api.api(schemas: try SchemaStore.locate()),
            authenticator: RemoteAuthenticator(rootURL: foundation.rootURL, transport: foundation.transport),
            own: [
                StepRunner(store: foundation.store, owner: foundation.owner, look: service.look),
                bus,
                PeriodicService(name: "leave-groups", every: .seconds(60)) { try await service.leaveOldGroups() },
            ]
        )
    }
}

@main
enum Main {
    static func main() async { await DaemonCommand<ShipItTaskcluster>.main() }
}
