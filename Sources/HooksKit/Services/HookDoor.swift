// SPDX-License-Identifier: MPL-2.0

package import JSON
package import Postgres
import Schedules
import Taskcluster

/// Lets other parts of a process trigger hooks, each in a transaction of its own that also says why.
///
/// Whoever observed something writes down that it was dealt with together with the fire it makes; the two cannot come
/// apart, whenever a process dies. Templates see what they see when somebody calls `triggerHook`.
package struct HookDoor: Sendable {
    /// What became of the wish to trigger a hook.
    package enum Answer: Sendable, Equatable {
        /// A fire is written down, which will make the task.
        case accepted(taskID: String)
        /// The template makes no task of this.
        case declined
        /// The hook cannot fire as it is now.
        case refused(String)
    }

    /// What became of a fire.
    package enum End: Sendable, Equatable {
        /// It is still being tried.
        case pending
        /// Its task exists.
        case created
        /// There will be no task.
        case failed(String)
    }

    private let fires: FireStore
    private let programs: HookPrograms
    private let dispatcher: FireDispatcher

    package init(fires: FireStore, programs: HookPrograms, dispatcher: FireDispatcher) {
        self.fires = fires
        self.programs = programs
        self.dispatcher = dispatcher
    }

    /// Writes the fire of a hook down in the transaction that is open on a connection.
    ///
    /// The key is one that no other occasion ever has. Call ``wake()`` after the commit.
    package func trigger(
        _ name: HookName,
        payload: JSONValue,
        key: String,
        clientID: String,
        on connection: PostgresConnection
    ) async throws -> Answer {
        let program: HookProgram?
        do { program = try await programs.program(of: name, on: connection) } catch let failure as FireFailure {
            return .refused(failure.message)
        }
        guard let program else { return .refused("there is no hook \(name)") }
        let problems = program.schema.validate(payload)
        guard problems.isEmpty else {
            return .refused("triggerSchema: " + problems.map { $0.described() }.joined(separator: "; "))
        }
        let context: JSONObject = [
            "payload": program.schema.applyingDefaults(payload), "clientId": JSONValue(clientID),
        ]
        let instant = Timestamp.now()
        let taskID = Slugid.make()
        let rendering = FiringContext(firedBy: .triggerHook, taskID: taskID, created: instant, extras: context)
            .render(program.template)
        switch rendering {
        case .declined: return .declined
        case .failed(let failure): return .refused(failure.message)
        case .task: break
        }
        var draft = FireDraft(
            name: name,
            taskID: taskID,
            firedBy: .triggerHook,
            context: context,
            created: instant,
            started: instant,
            rendering: rendering,
            deduplicationKey: key,
            rendered: .now()
        )
        draft.origin = .trigger
        _ = try await fires.accept([draft], slots: 0, on: connection)
        return .accepted(taskID: taskID)
    }

    /// Has fires that were just committed performed at once.
    package func wake() { dispatcher.lookNow() }

    /// What became of the fires with some keys; keys that nothing is known of are left out.
    package func ends(of keys: [String]) async throws -> [String: End] {
        guard !keys.isEmpty else { return [:] }
        let rows = try await fires.pool.query(
            """
            select dedup_key, state, outcome, coalesce(reason, error, outcome) as reason from hooks.fires
            where dedup_key = any(\(keys))
            """
        )
        var ends: [String: End] = [:]
        for row in rows {
            let key = try row.string("dedup_key")
            guard try row.string("state") == "done" else {
                ends[key] = .pending
                continue
            }
            let isCreated = try row.optionalString("outcome") == "created"
            ends[key] = isCreated ? .created : .failed(try row.optionalString("reason") ?? "there is no task")
        }
        return ends
    }
}
