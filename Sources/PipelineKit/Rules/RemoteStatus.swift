// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepKit

/// What a step service says of a step, if it makes sense.
enum RemoteStatus: Sendable, Hashable {
    case known(state: RunState, message: String, output: JSONObject, info: JSONObject, updated: Timestamp? = nil)
    /// It makes no sense, for this reason.
    case garbage(String)

    /// Reads an answer; both vocabularies are understood, and answers that contradict themselves are not believed.
    init(_ body: [UInt8], uid: String) {
        // Whatever is wrong with it, it makes no sense.
        self.init((try? JSONValue(parsing: body)) ?? .null, uid: uid)
    }

    /// Reads what a service says of a step.
    init(_ body: JSONValue, uid: String) {
        guard let object = body.object else {
            self = .garbage("the answer is not a JSON object")
            return
        }
        if let name = object["uid"], name.string != uid {
            self = .garbage("the answer is about another step")
            return
        }
        var state: StepState?
        if let word = object["state"] {
            guard let known = word.string.flatMap(StepState.init(rawValue:)) else {
                self = .garbage("the state is not known")
                return
            }
            state = known
        }
        var status: StepStatus?
        if let word = object["status"] {
            guard let known = word.string.flatMap(StepStatus.init(rawValue:)) else {
                self = .garbage("the status is not known")
                return
            }
            status = known
        }
        if let state, let status, state.status != status {
            self = .garbage("state and status contradict each other")
            return
        }
        guard let run = state.map(Self.run) ?? status.map(Self.run) else {
            self = .garbage("the answer has neither state nor status")
            return
        }
        self = .known(
            state: run,
            message: String((object["message"]?.string ?? "").prefix(2000)),
            output: object["output"]?.object ?? [:],
            info: object["info"]?.object ?? [:],
            updated: object["updated"]?.string.flatMap(Timestamp.init)
        )
    }

    private static func run(_ state: StepState) -> RunState {
        switch state {
        case .pending, .starting, .running, .stopping: .running
        case .completed: .completed
        case .failed: .failed
        case .exception: .exception
        case .cancelled: .cancelled
        }
    }

    private static func run(_ status: StepStatus) -> RunState {
        switch status {
        case .inProgress: .running
        case .success: .completed
        case .failure: .failed
        case .cancelled: .cancelled
        }
    }
}
