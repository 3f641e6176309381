// SPDX-License-Identifier: MPL-2.0

import JSON
import WorkerKit

/// The statement that a worker makes about what a task produced.
enum ChainOfTrustArtifact {
    static let name = "public/chain-of-trust.json"
    static let signatureName = "public/chain-of-trust.json.sig"
    /// What a decision task leaves that its chain is checked with.
    static let ofParents = ["public/task-graph.json", "public/actions.json", "public/parameters.yml"]

    /// The task cannot be described in this form.
    struct Problem: Error, CustomStringConvertible {
        let description: String
    }

    /// The statement's text; only these exact bytes are signed.
    static func text(
        _ claim: Claim,
        workerType: String,
        algorithm: String,
        digests: [String: String]
    ) throws -> [UInt8] {
        for key in ["dependencies", "payload", "scopes", "taskGroupId", "workerType"] where claim.task[key] == nil {
            throw Problem(description: "the task has no \(key), which a chain-of-trust artifact needs")
        }
        for key in ["dependencies", "scopes"] {
            let values = claim.task[key]?.array ?? []
            guard Set(values).count == values.count else {
                throw Problem(description: "the task's \(key) are not unique, which a chain-of-trust artifact needs")
            }
        }
        var artifacts = JSONObject()
        for (name, digest) in digests { artifacts[name] = [algorithm: .string(digest)] }
        let json: JSONValue = [
            "artifacts": .object(artifacts),
            "chainOfTrustVersion": 1,
            "environment": [:],
            "runId": .init(claim.runID),
            "task": claim.task,
            "taskId": .string(claim.taskID),
            "workerGroup": .string(claim.workerGroup),
            "workerId": .string(claim.workerID),
            "workerType": .string(workerType),
        ]
        return Array(json.asciiText(.prettySorted).utf8)
    }
}
