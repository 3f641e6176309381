// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import DaemonCommand
import Postgres
import RollerActionsKit
import RollerKit
import ServiceLifecycle

/// The daemon that does the jobs of roller.
enum RollerWorkerDaemon: DaemonDescription {
    static let name = "roller-worker"
    static let abstract = "Reboots machines, and does whatever else roller is asked for."
    static let discussion = """
        Any number of copies may run; each machine is worked on by one job at a time. \
        `roller-worker act --help` tells how to run one action without broker and database.
        """

    static var migrate: (@Sendable (DaemonContext) async throws -> Void)? {
        { context in
            let pool = PostgresPool(PostgresConfiguration(settings: context.settings, applicationName: context.name))
            try context.settings.check()
            defer { pool.close() }
            try await RollerMigrations.migrate(pool)
        }
    }

    static func build(_ context: DaemonContext) throws -> [any Service] {
        let configuration = HTTPServerConfiguration(settings: context.settings)
        let services = try RollerWorker.services(context)
        let server = HTTPServer(
            configuration: configuration,
            name: context.name,
            rootURL: nil,
            apis: [],
            authenticator: nil,
            health: context.health
        )
        return services + [server]
    }
}

@main
enum Main {
    static func main() async {
        if CommandLine.arguments.dropFirst().first == "act" {
            await Act.main(Array(CommandLine.arguments.dropFirst(2)))
        } else {
            await DaemonCommand<RollerWorkerDaemon>.main()
        }
    }
}
