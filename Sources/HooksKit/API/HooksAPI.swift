// SPDX-License-Identifier: MPL-2.0

package import APIServer
import Core
import JSON
package import Schedules
import Taskcluster
package import TaskclusterClient

/// The HTTP API of hooks.
package struct HooksAPI: Sendable {
    let store: HookStore
    let fires: FireStore
    let history: HistoryStore
    let programs: HookPrograms
    let schedules: ScheduleStore
    let dispatcher: FireDispatcher
    let triggers: TriggerAcceptance
    let rules: HookRules
    let client: TaskclusterClient
    /// Whether defaults of the trigger schema are filled into the payload that templates see.
    let appliesTriggerDefaults: Bool
    /// Whether calls with a trigger token may have query options, which mean nothing.
    let ignoresTokenQuery: Bool
    let now: @Sendable () -> Timestamp

    package init(
        store: HookStore,
        fires: FireStore,
        history: HistoryStore,
        programs: HookPrograms,
        schedules: ScheduleStore,
        dispatcher: FireDispatcher,
        rules: HookRules,
        client: TaskclusterClient,
        appliesTriggerDefaults: Bool = true,
        ignoresTokenQuery: Bool = false,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        self.store = store
        self.fires = fires
        self.history = history
        self.programs = programs
        self.schedules = schedules
        self.dispatcher = dispatcher
        triggers = TriggerAcceptance(fires: fires, underWay: dispatcher.underWay)
        self.rules = rules
        self.client = client
        self.appliesTriggerDefaults = appliesTriggerDefaults
        self.ignoresTokenQuery = ignoresTokenQuery
        self.now = now
    }

    /// How many triggers and other fires are carried out now.
    package var firesUnderWay: Int { dispatcher.underWay.count }

    /// The declaration of all endpoints and exchanges.
    package func api(schemas: SchemaStore) throws -> API {
        API(
            service: "hooks",
            title: "Hooks Service",
            description: """
                A hook is a task template with a name and an owner. It makes a task whenever its schedule says so, \
                somebody triggers it, a holder of its token calls its address, or a bus message matches its bindings.
                """,
            schemas: schemas,
            endpoints: try definitionEndpoints() + statusEndpoints() + triggerEndpoints() + renderEndpoints()
                + seedEndpoints() + scheduleEndpoints() + messageEndpoints(),
            exchanges: HookExchanges.references
        )
    }

    static let parameters: [String: ParameterRule] = [
        "hookGroupId": ParameterRule(pattern: "^[a-zA-Z0-9-_]{1,1000}$") { text in
            isIdentifier(text, alsoSlash: false)
        },
        "hookId": ParameterRule(pattern: "^[a-zA-Z0-9-_/]{1,1000}$") { text in
            isIdentifier(text, alsoSlash: true)
        },
    ]

    static let hookRoute = "/hooks/<hookGroupId>/<hookId>"

    private static func isIdentifier(_ text: String, alsoSlash: Bool) -> Bool {
        (1...1000).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
                    true
                case UInt8(ascii: "/"): alsoSlash
                default: false
                }
            }
    }
}

extension APIRequest {
    /// The hook that the address names.
    var hookName: HookName {
        HookName(group: parameter("hookGroupId"), hook: parameter("hookId"))
    }
}

extension APIError {
    static let noSuchHook = APIError(.resourceNotFound, "No such hook")
}
