// SPDX-License-Identifier: MPL-2.0

import APIServer
import BridgesKit
import Core
import DaemonCommand
import HooksKit
import Postgres
import Pulse
import ServiceLifecycle
import TaskclusterClient
import TriggersKit

/// The daemon that fires hooks when messages on the bus match their bindings, and carries events from outside onto it.
enum PulseListener: DaemonDescription {
    static let name = "pulse-listener"
    static let abstract = "Fires hooks upon bus messages."
    static let discussion = """
        Keeps a durable queue for every hook with bindings; any number of replicas share the work. With BRIDGES_CONFIG it \
        also receives webhooks, announces the minutes of the clock and watches Mercurial repositories. With \
        TRIGGERS_CONFIG it watches code review and builds, and triggers hooks.
        """

    static var migrate: (@Sendable (DaemonContext) async throws -> Void)? {
        { context in
            let pool = PostgresPool(PostgresConfiguration(settings: context.settings, applicationName: name))
            try context.settings.check()
            try await BridgesMigrations.migrate(pool)
            try await TriggersMigrations.migrate(pool)
        }
    }

    static func build(_ context: DaemonContext) throws -> [any Service] {
        let settings = context.settings
        let foundation = try HooksFoundation(context)
        let pulse = PulseConnection(PulseConfiguration(settings: settings), name: context.name)
        context.health.register("broker") { try await pulse.checkHealth() }
        let kind = settings.string(
            "pulse.queue.type",
            default: PulseQueue.Kind.classic.rawValue,
            "what queues are made as: classic, or quorum for a cluster of brokers"
        )
        if PulseQueue.Kind(rawValue: kind) == nil { settings.fail("pulse.queue.type", "must be classic or quorum") }
        let maxLength = settings.int(
            "pulse.queue.max.length",
            default: 0,
            in: 0...1_000_000_000,
            "how many messages a hook's queue keeps; 0 keeps all"
        )
        let overflow = settings.string(
            "pulse.queue.overflow",
            default: "dead-letter",
            "what a full queue does: dead-letter its oldest message, or refuse the new one"
        )
        if !["dead-letter", "refuse"].contains(overflow) {
            settings.fail("pulse.queue.overflow", "must be dead-letter or refuse")
        }
        let deliveryLimit = settings.int(
            "pulse.delivery.limit",
            default: 20,
            in: 1...10_000,
            "how often a message may break its consumer before it becomes a dead letter"
        )
        let prefetch = settings.int(
            "pulse.prefetch",
            default: 100,
            in: 1...1000,
            "how many messages of one hook are accepted together"
        )
        let replaces = settings.bool(
            "pulse.replace.silent.queues",
            default: false,
            "make a queue anew, without its messages, for which the broker does not answer; for a single broker only"
        )
        let configuration = HTTPServerConfiguration(settings: settings)
        let bridges = Bridges(
            settings: settings,
            health: context.health,
            pool: foundation.pool,
            pulse: pulse,
            transport: foundation.transport
        )
        let triggers = Triggers(
            settings: settings,
            health: context.health,
            Triggers.Surroundings(
                pool: foundation.pool,
                pulse: pulse,
                transport: foundation.transport,
                client: foundation.client,
                door: foundation.firing.door,
                clientID: foundation.clientID,
                rootURL: foundation.rootURL,
                longestPause: foundation.pollingDelay,
                queueKind: PulseQueue.Kind(rawValue: kind) ?? .classic
            )
        )
        try settings.check()
        let store = ListenerStore(pool: foundation.pool)
        let hooks = HookListeners(
            store: store,
            pulse: pulse,
            intake: DeliveryIntake(
                store: store,
                fires: foundation.firing.fires,
                programs: foundation.firing.programs,
                dispatcher: foundation.firing.dispatcher,
                deliveryLimit: deliveryLimit
            ),
            options: HookQueueOptions(
                kind: PulseQueue.Kind(rawValue: kind) ?? .classic,
                maxLength: maxLength == 0 ? nil : maxLength,
                refusesOverflow: overflow == "refuse",
                deliveryLimit: deliveryLimit,
                replacesSilentQueues: replaces
            ),
            prefetch: prefetch
        )
        context.health.register("hooks") { try await hooks.checkReady() }
        let letters = DeadLetterStore(pool: foundation.pool)
        let listeners: [any Service] = [
            foundation.pool,
            pulse,
            foundation.firing.dispatcher,
            hooks,
            PeriodicService(name: "expire-dead-letters", every: .seconds(3600)) { try await letters.expire() },
        ]
        let server = HTTPServer(
            configuration: configuration,
            name: context.name,
            rootURL: foundation.rootURL,
            apis: (bridges?.apis ?? []) + (triggers?.apis ?? []),
            authenticator: RemoteAuthenticator(rootURL: foundation.rootURL, transport: foundation.transport),
            health: context.health,
            raw: (bridges?.routes ?? []) + (triggers?.routes ?? [])
        )
        return listeners + (bridges?.services ?? []) + (triggers?.services ?? []) + [server]
    }
}

@main
enum Main {
    static func main() async { await DaemonCommand<PulseListener>.main() }
}
