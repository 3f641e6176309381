// SPDX-License-Identifier: MPL-2.0

package import JSON
package import RollerKit
import Synchronization

/// The conduct of an action started from the command line: no database, attempts are kept for the answer.
package final class LocalConduct: JobConduct {
    /// One attempt, as it is shown.
    package struct Attempt: Sendable {
        /// The name of the method.
        package var method: String
        /// The control.
        package var control: String?
        /// What was run, without secrets.
        package var arguments: [String]
        /// How it ended; nil while it runs.
        package var end: AttemptEnd?
    }

    private struct State {
        var attempts: [Attempt] = []
        var notes: [(kind: String, data: JSONObject)] = []
    }

    private let state = Mutex(State())
    private let show: @Sendable (String) -> Void

    /// Creates a conduct that shows its live log line by line.
    package init(show: @escaping @Sendable (String) -> Void = { _ in }) {
        self.show = show
    }

    /// What was tried so far.
    package var attempts: [Attempt] { state.withLock { $0.attempts } }

    /// What was noted so far.
    package var notes: [JSONValue] {
        state.withLock { state in state.notes.map { ["kind": JSONValue($0.kind), "data": .object($0.data)] } }
    }

    /// Throws when the process is told to stop.
    package func checkpoint() async throws(ActionError) {
        if Task.isCancelled { throw ActionError(.canceled, "interrupted") }
    }

    /// Nobody else can have it.
    package func checkOwnership() async throws(ActionError) {}

    /// Keeps the attempt.
    package func begin(_ method: String, control: String?, arguments: [String]) async throws(ActionError) -> Int {
        show("\(method): \(arguments.joined(separator: " "))")
        return state.withLock { state in
            state.attempts.append(Attempt(method: method, control: control, arguments: arguments))
            return state.attempts.count
        }
    }

    /// Completes the attempt.
    package func end(_ attempt: Int, _ end: AttemptEnd) async {
        show("\(end.outcome.rawValue): \(end.summary)")
        state.withLock { $0.attempts[attempt - 1].end = end }
    }

    /// Shows the note.
    package func note(_ kind: String, _ data: JSONObject) async {
        show("\(kind) \(JSONValue.object(data).text())")
        state.withLock { $0.notes.append((kind, data)) }
    }

    /// Shows the alert.
    package func alert(_ kind: String, _ text: String) async {
        show("ALERT \(kind): \(text)")
        state.withLock { $0.notes.append(("alert", ["alert": JSONValue(kind), "text": JSONValue(text)])) }
    }

    /// The command line has no address at which it could be told.
    package func openCallback() async throws(ActionError) -> String? { nil }

    /// Nobody tells it anything.
    package func installationReport() async throws(ActionError) -> JobStore.InstallationReport? { nil }

    /// Nothing to say.
    package func beginVerifying() async throws(ActionError) {}

    /// One process makes one call at a time anyway.
    package func takeTurn(_ control: Control, changes: Bool, limit: Duration) async throws(ActionError) -> Turn {
        Turn(resource: nil)
    }

    /// Nothing was taken.
    package func giveBack(_ turn: Turn) async {}

    /// Shows it; the process remembers it by itself, and nobody else asks.
    package func learn(_ fact: JSONObject, about control: Control) async {
        await note("learned", ["control": JSONValue(control.label), "fact": .object(fact)])
    }

    /// Shows the intent.
    package func intendPower(_ target: ActionTarget, by control: Control) async throws(ActionError) {
        await note("intent", ["power": "on", "control": JSONValue(control.label)])
    }

    /// Shows that the intent is fulfilled.
    package func fulfilPower(_ target: ActionTarget) async {
        await note("intent-fulfilled", [:])
    }
}
