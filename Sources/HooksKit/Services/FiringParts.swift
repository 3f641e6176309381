// SPDX-License-Identifier: MPL-2.0

package import Outbox
package import Postgres
package import Schedules
package import TaskclusterClient

/// What makes hooks fire: their stores, the programs made of their templates, and the dispatcher of fires.
package struct FiringParts {
    package let outbox = Outbox(schema: "hooks")
    package let hooks: HookStore
    package let fires: FireStore
    package let schedules: ScheduleStore
    package let programs: HookPrograms
    package let performer: FirePerformer
    package let dispatcher: FireDispatcher
    package let door: HookDoor

    /// Puts them together.
    ///
    /// - Parameters:
    ///   - pool: The database.
    ///   - box: What keeps secrets in it.
    ///   - namespace: The middle part of the names of the exchanges that announce changes of hooks.
    ///   - client: Who makes tasks.
    ///   - longestPause: The longest time between two attempts to make one.
    ///   - interval: How often to look for fires that nobody told of.
    ///   - now: The clock.
    package init(
        pool: PostgresPool,
        box: SecretBox,
        namespace: String,
        client: TaskclusterClient,
        longestPause: Duration,
        interval: Duration = .seconds(1),
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        hooks = HookStore(pool: pool, box: box, outbox: outbox, namespace: namespace)
        fires = FireStore(pool: pool, namespace: namespace)
        schedules = ScheduleStore(pool: pool, box: box)
        programs = HookPrograms(pool: pool)
        performer = FirePerformer(
            fires: fires,
            hooks: hooks,
            schedules: schedules,
            programs: programs,
            client: client,
            longestPause: longestPause,
            now: now
        )
        dispatcher = FireDispatcher(fires: fires, performer: performer, interval: interval)
        door = HookDoor(fires: fires, programs: programs, dispatcher: dispatcher)
    }
}
