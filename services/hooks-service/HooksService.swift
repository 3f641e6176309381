// SPDX-License-Identifier: MPL-2.0

import Core
import DaemonCommand
import HooksKit
import Postgres

/// The daemon that answers the HTTP API of hooks.
enum HooksService: DaemonDescription {
    static let name = "hooks-service"
    static let abstract = "Serves the hooks API."
    static let discussion = "Stores hooks, triggers them on request, and announces their changes on the bus."

    static var migrate: (@Sendable (DaemonContext) async throws -> Void)? {
        { context in
            let pool = PostgresPool(PostgresConfiguration(settings: context.settings, applicationName: name))
            try context.settings.check()
            try await HooksMigrations.migrate(pool)
        }
    }
}

@main
enum Main {
    static func main() async { await DaemonCommand<HooksService>.main() }
}
