// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import DaemonCommand
import HooksKit
import ServiceLifecycle

/// The daemon that fires hooks at the instants of their schedules.
enum SchedulerDaemon: DaemonDescription {
    static let name = "scheduler"
    static let abstract = "Fires hooks by their schedules."
    static let discussion = "Any number of replicas may run; each instant of a schedule fires once."

    static func build(_ context: DaemonContext) throws -> [any Service] {
        let foundation = try HooksFoundation(context)
        let configuration = HTTPServerConfiguration(settings: context.settings)
        try context.settings.check()
        let history = HistoryStore(pool: foundation.pool)
        return [
            foundation.pool,
            foundation.dispatcher,
            Scheduler(
                schedules: foundation.schedules,
                fires: foundation.fires,
                programs: foundation.programs,
                dispatcher: foundation.dispatcher,
                interval: foundation.pollingDelay
            ),
            PeriodicService(name: "expire-hook-history", every: .seconds(600)) { try await history.expire() },
            HTTPServer(
                configuration: configuration,
                name: context.name,
                rootURL: nil,
                apis: [],
                authenticator: nil,
                health: context.health
            ),
        ]
    }
}

@main
enum Main {
    static func main() async { await DaemonCommand<SchedulerDaemon>.main() }
}
