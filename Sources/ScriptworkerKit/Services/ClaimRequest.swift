// SPDX-License-Identifier: MPL-2.0

import JSON
import TaskclusterClient
import WorkerKit

/// The request for one task.
struct ClaimRequest: Sendable {
    let queueID: String
    let workerGroup: String
    let workerID: String
    let timeout: Duration

    /// Sends it; the queue may hold it for 20 seconds.
    ///
    /// Claims that make no sense are told and left out.
    func send(_ client: TaskclusterClient, onProblem: (String) -> Void) async throws(TaskclusterError) -> [Claim] {
        let body: JSONValue = ["workerGroup": .string(workerGroup), "workerId": .string(workerID), "tasks": 1]
        let answer = try await client.call(
            "queue",
            "POST",
            ["claim-work", queueID],
            body: body,
            timeout: timeout
        )
        return (answer["tasks"]?.array ?? []).compactMap { json in
            let claim = Claim(json)
            if claim == nil { onProblem("the queue gave us a claim that makes no sense") }
            return claim
        }
    }
}
