// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HooksKit
import Outbox
import Pulse
import ServiceLifecycle
import TaskclusterClient

extension HooksService {
    static func build(_ context: DaemonContext) throws -> [any Service] {
        let settings = context.settings
        let foundation = try HooksFoundation(context)
        let pulse = PulseConnection(PulseConfiguration(settings: settings), name: context.name)
        context.health.register("broker") { try await pulse.checkHealth() }
        let denied = settings.optional(
            "pulse.denylist",
            "regular expressions of exchanges hooks may not bind to, with commas"
        )
        let always = HookRules.alwaysDenied(namespace: foundation.exchangeNamespace)
        var rules = try HookRules(deniedExchanges: always)
        do {
            let own = denied.map { $0.split(separator: ",").map(String.init) } ?? HookRules.defaultDenied
            rules = try HookRules(deniedExchanges: own + always)
        } catch {
            settings.fail("pulse.denylist", "names an exchange that is no regular expression: \(error)")
        }
        let defaults = settings.bool(
            "hooks.trigger.defaults",
            default: true,
            "fill trigger schema defaults into payloads"
        )
        let ignoresQuery = settings.bool(
            "hooks.token.query",
            default: false,
            "ignore query options of calls with a trigger token instead of refusing them"
        )
        let configuration = HTTPServerConfiguration(settings: settings)
        try settings.check()
        let api = HooksAPI(
            store: foundation.firing.hooks,
            fires: foundation.firing.fires,
            history: HistoryStore(pool: foundation.pool),
            programs: foundation.firing.programs,
            schedules: foundation.firing.schedules,
            dispatcher: foundation.firing.dispatcher,
            rules: rules,
            client: foundation.client,
            appliesTriggerDefaults: defaults,
            ignoresTokenQuery: ignoresQuery
        )
        return [
            foundation.pool,
            pulse,
            HookExchangeDeclarations(pulse: pulse, namespace: foundation.exchangeNamespace),
            OutboxRelay(outbox: foundation.firing.outbox, pool: foundation.pool, pulse: pulse),
            foundation.firing.dispatcher,
            PeriodicService(name: "rotate-hook-secrets", every: .seconds(3600)) {
                try await foundation.firing.hooks.rotateSecrets()
            },
            HTTPServer(
                configuration: configuration,
                name: context.name,
                rootURL: foundation.rootURL,
                apis: [try api.api(schemas: try SchemaStore.locate())],
                authenticator: RemoteAuthenticator(
                    rootURL: foundation.rootURL,
                    transport: foundation.transport,
                    expecting: { api.firesUnderWay }
                ),
                health: context.health
            ),
        ]
    }
}
