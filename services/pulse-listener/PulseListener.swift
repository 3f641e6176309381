// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import DaemonCommand
import HooksKit
import Pulse
import ServiceLifecycle

/// The daemon that fires hooks when messages on the bus match their bindings.
enum PulseListener: DaemonDescription {
    static let name = "pulse-listener"
    static let abstract = "Fires hooks upon bus messages."
    static let discussion = "Keeps a durable queue for every hook with bindings; any number of replicas share the work."

    static func build(_ context: DaemonContext) throws -> [any Service] {
        let settings = context.settings
        let foundation = try HooksFoundation(context)
        let pulse = PulseConnection(PulseConfiguration(settings: settings), name: context.name)
        context.health.register("broker") { try await pulse.checkHealth() }
        let maxLength = settings.int(
            "pulse.queue.max.length",
            default: 0,
            in: 0...1_000_000_000,
            "how many messages a hook's queue keeps before it drops the oldest; 0 keeps all"
        )
        let prefetch = settings.int(
            "pulse.prefetch",
            default: 50,
            in: 1...1000,
            "how many messages of one hook are accepted together"
        )
        let configuration = HTTPServerConfiguration(settings: settings)
        try settings.check()
        let store = ListenerStore(pool: foundation.pool)
        return [
            foundation.pool,
            pulse,
            foundation.dispatcher,
            HookListeners(
                store: store,
                pulse: pulse,
                intake: DeliveryIntake(
                    store: store,
                    fires: foundation.fires,
                    programs: foundation.programs,
                    dispatcher: foundation.dispatcher
                ),
                maxLength: maxLength == 0 ? nil : maxLength,
                prefetch: prefetch
            ),
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
    static func main() async { await DaemonCommand<PulseListener>.main() }
}
