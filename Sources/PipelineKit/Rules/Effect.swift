// SPDX-License-Identifier: MPL-2.0

import JSON
import StepKit

/// What a call to a step service came to.
struct Observation: Sendable {
    enum Result: Sendable, Hashable {
        /// It has the step.
        case accepted
        /// It refuses the step for good.
        case refused(String)
        /// It could not be asked, or could not answer; it may say when to come back.
        case unreachable(String, retryAfter: Duration?)
        /// It does not know the step.
        case unknown
        case status(RemoteStatus)
        /// It has been told to stop the step.
        case stopped
    }

    let step: String
    let attempt: Int
    /// How often the service was said to have news of the step before it was called.
    let hints: Int
    let result: Result
}

/// A call to a step service that has to be made.
struct Effect: Sendable, Hashable {
    enum Kind: Sendable, Hashable {
        case start(body: JSONObject)
        case poll
        case stop
    }

    let step: String
    let attempt: Int
    let hints: Int
    let remoteUID: String
    let apiURL: String
    let kind: Kind
}

extension Effect {
    /// What the call came to.
    func observation(_ result: Observation.Result) -> Observation {
        Observation(step: step, attempt: attempt, hints: hints, result: result)
    }

    /// What the call comes to in a dry run, in which every step is completed as soon as it has begun.
    var played: Observation {
        let result: Observation.Result =
            switch kind {
            case .start: .accepted
            case .poll: .status(.known(state: .completed, message: "played", output: [:], info: [:]))
            case .stop: .status(.known(state: .cancelled, message: "played", output: [:], info: [:]))
            }
        return observation(result)
    }
}
