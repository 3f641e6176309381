// SPDX-License-Identifier: MPL-2.0

package import JSON
package import RollerKit

/// Something an operator can ask for: one file, one test, one line in ``ActionRegistry``.
package protocol RollerAction: Sendable {
    /// The name in requests and the text of the button.
    var description: ActionDescription { get }

    /// What would be done, one line a step, without doing anything; lines hold no secrets.
    func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError) -> [String]

    /// Does it.
    func run(_ context: ActionContext) async throws(ActionError) -> ActionResult

    /// How much longer than other work it may take, beyond the limits of jobs.
    func extraTime(_ settings: ActionSettings) -> Duration
}

extension RollerAction {
    /// What others take is enough.
    package func extraTime(_ settings: ActionSettings) -> Duration { .zero }
}

/// An action that the escalating `reboot` may use as one of its steps.
package protocol RebootMethod: RollerAction {
    /// Whether the operating system gets no chance to shut down.
    var isHard: Bool { get }

    /// Whether the machine has what the method needs.
    func isApplicable(to target: ActionTarget) -> Bool

    /// How long one call may take at most.
    func budget(_ target: ActionTarget) -> Duration
}

extension RebootMethod {
    /// Power methods give the operating system no chance.
    package var isHard: Bool { true }

    /// Whether one of the controls that the description asks for is there.
    package func isApplicable(to target: ActionTarget) -> Bool {
        let wanted = description.controls
        return wanted.isEmpty
            || wanted.contains { kind in target.controls.contains { $0.kind == kind } }
    }

    /// A minute is what power methods take at most.
    package func budget(_ target: ActionTarget) -> Duration { .seconds(60) }
}

/// What was asked for, by whom.
package struct ActionJob: Sendable, Hashable {
    /// The id of the job.
    package var id: String
    /// The name of the action.
    package var taskName: String
    /// The parameters of the request.
    package var params: JSONObject
    /// Who asked.
    package var clientID: String
    /// The Taskcluster worker the request named.
    package var workerID: String
    /// Its group.
    package var workerGroup: String?
    /// Its provisioner.
    package var provisionerID: String?
    /// Its type.
    package var workerType: String?
    /// The page the request came from.
    package var httpOrigin: String?

    /// A job from its parts.
    package init(
        id: String,
        taskName: String,
        params: JSONObject = [:],
        clientID: String = "",
        workerID: String = "",
        workerGroup: String? = nil,
        provisionerID: String? = nil,
        workerType: String? = nil,
        httpOrigin: String? = nil
    ) {
        self.id = id
        self.taskName = taskName
        self.params = params
        self.clientID = clientID
        self.workerID = workerID
        self.workerGroup = workerGroup
        self.provisionerID = provisionerID
        self.workerType = workerType
        self.httpOrigin = httpOrigin
    }
}

/// What an action has to say when it succeeded.
package struct ActionResult: Sendable, Hashable {
    /// One line for people.
    package var summary: String
    /// The details for programs.
    package var details: JSONObject
    /// Whether the effect was seen, rather than only asked for.
    package var isVerified: Bool

    /// A result from its parts.
    package init(_ summary: String, _ details: JSONObject = [:], isVerified: Bool = true) {
        self.summary = summary
        self.details = details
        self.isVerified = isVerified
    }
}

/// Whether a machine has power.
package enum PowerState: String, Sendable, Hashable {
    /// It has.
    case on
    /// It has not.
    case off
    /// The controller does not say; never to be taken for `off`.
    case unknown
}
