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
        let catchUpRate = context.settings.int(
            "hooks.catchup.rate",
            default: 100,
            in: 1...100_000,
            "how many missed instants fire in a second after an outage"
        )
        let sender = LetterSenders.sender(
            context.settings,
            client: foundation.client,
            transport: foundation.transport
        )
        try context.settings.check()
        Metrics.describe(
            "hooks_schedule_lateness_seconds",
            "From the instant of a schedule until its fire is written down.",
            buckets: [0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600]
        )
        let history = HistoryStore(pool: foundation.pool)
        let mailer = FailureMailer(store: FailureMailStore(pool: foundation.pool), sender: sender)
        return [
            foundation.pool,
            foundation.firing.dispatcher,
            Scheduler(
                schedules: foundation.firing.schedules,
                fires: foundation.firing.fires,
                programs: foundation.firing.programs,
                dispatcher: foundation.firing.dispatcher,
                interval: foundation.pollingDelay,
                catchUpRate: catchUpRate
            ),
            PeriodicService(name: "mail-owners", every: .seconds(2)) { while try await mailer.sendDue() > 0 {} },
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
