// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import DaemonCommand
import Postgres
import RollerActionsKit
import RollerKit
import ServiceLifecycle
import TaskclusterClient

/// The daemon that takes requests for work on machines and shows what became of them.
enum RollerAPIService: DaemonDescription {
    static let name = "roller-api"
    static let abstract = "Takes requests to reboot, reimage and look after machines."
    static let discussion = """
        Answers the API that sheriffs, Taskcluster actions and operators use. Workers do the work; any number of both may \
        run.
        """

    static var migrate: (@Sendable (DaemonContext) async throws -> Void)? {
        { context in
            let pool = PostgresPool(PostgresConfiguration(settings: context.settings, applicationName: name))
            try context.settings.check()
            try await RollerMigrations.migrate(pool)
        }
    }

    static func build(_ context: DaemonContext) throws -> [any Service] {
        let foundation = RollerFoundation(context)
        let settings = RollerAPISettings(settings: context.settings)
        // Putting right what a lost job left behind is the workers' own business.
        let catalogue = ActionCatalogue(ActionRegistry.standard.catalogue.actions.filter { $0.name != "recover" })
        if let names = settings.taskNames, case let unknown = catalogue.limited(to: names).unknown, !unknown.isEmpty {
            context.settings.fail("task.names", "names \(unknown.joined(separator: ", ")), which no action is called")
        }
        let path = context.settings.path(
            "worker.config.path",
            "the file of the original service that fills an empty inventory"
        )
        let configuration = HTTPServerConfiguration(settings: context.settings, defaultPort: 8000)
        try context.settings.check()
        let (pool, pulse, client) = (foundation.pool, foundation.pulse, foundation.client)
        context.health.register("database") { try await pool.checkHealth() }
        let health = RollerHealth(
            RollerHealth.storeChecks(pool) + [
                RollerHealth.inventoryCheck(pool, foundation.credentials),
                RollerHealth.Check("broker", .warning) { try await pulse.checkHealth() },
                RollerHealth.Check("auth", .warning) { _ = try await client.call("auth", "GET", ["ping"]) },
            ]
        )
        let api = RollerAPI(
            settings: settings,
            catalogue: catalogue,
            jobs: foundation.jobs,
            inventory: foundation.inventory,
            credentials: foundation.credentials,
            verify: RollerAPI.verifier(client)
        )
        let jobs = foundation.jobs
        let ages = (outputs: settings.outputRetention, jobs: settings.jobRetention)
        let imports = path.map { path in
            FirstImport(
                inventory: foundation.inventory,
                credentials: foundation.credentials,
                path: path,
                seeds: settings.seeds
            )
        }
        return foundation.services + (imports.map { [$0] } ?? []) + [
            PeriodicService(name: "sweep of jobs", every: .seconds(3600)) {
                try await jobs.sweep(outputs: ages.outputs, jobs: ages.jobs)
            },
            HTTPServer(
                configuration: configuration,
                name: context.name,
                rootURL: foundation.rootURL,
                apis: [RollerReferences.api(schemas: try SchemaStore.locate())],
                authenticator: RemoteAuthenticator(rootURL: foundation.rootURL, transport: foundation.transport),
                health: context.health,
                raw: health.routes + api.routes
            ),
        ]
    }
}

@main
enum Main {
    static func main() async { await DaemonCommand<RollerAPIService>.main() }
}
