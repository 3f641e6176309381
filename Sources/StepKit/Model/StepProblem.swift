// SPDX-License-Identifier: MPL-2.0

public import JSON

/// A refusal, as the problem document that its caller gets.
public struct StepProblem: Error, Sendable, CustomStringConvertible {
    /// The HTTP status.
    public var status: Int
    /// The word programs compare.
    public var code: String
    /// What people read.
    public var detail: String
    /// Further members of the document.
    public var members: JSONObject
    /// Header fields that go with it.
    public var headers: [String: String]

    /// Describes a refusal.
    public init(
        _ status: Int,
        _ code: String,
        _ detail: String,
        members: JSONObject = [:],
        headers: [String: String] = [:]
    ) {
        self.status = status
        self.code = code
        self.detail = detail
        self.members = members
        self.headers = headers
    }

    /// The request makes no sense.
    public static func invalid(_ detail: String, code: String = "invalid_request") -> StepProblem {
        StepProblem(400, code, detail)
    }

    /// There is no such step.
    public static func unknown(_ uid: String) -> StepProblem {
        StepProblem(404, "not_found", "There is no step \(uid)")
    }

    /// The step is in no state for the request.
    public static func conflict(_ code: String, _ detail: String) -> StepProblem {
        StepProblem(409, code, detail)
    }

    /// The code, without the text.
    public var description: String { "\(code) (\(status))" }
}
