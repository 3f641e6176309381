// SPDX-License-Identifier: MPL-2.0

package import JSON
package import Schedules

/// Something to be done to a machine, and what became of it.
package struct Job: Sendable, Hashable {
    /// A version 4 UUID in lower case.
    package var id: String
    package var taskName: String
    package var parameters: JSONObject
    /// The machine's id; nil for a look at a worker nobody knows.
    package var machine: String?
    package var worker: WorkerName
    package var clientID: String
    package var origin: String?
    package var source: JobSource
    package var isDryRun: Bool
    package var isDestructive: Bool
    package var isReadOnly: Bool
    package var state: JobState
    package var reason: String?
    package var errorClass: String?
    package var priority: Int
    package var pool: String
    package var created: Timestamp
    package var deadline: Timestamp?
    package var started: Timestamp?
    package var finished: Timestamp?
    /// The worker process that has or had the job.
    package var runner: String?
    /// The number of its claim; changes of a claim with a smaller number are ignored.
    package var fence: Int
    /// How often it was claimed.
    package var claims: Int
    package var isCancelRequested: Bool
    /// What a waiting job waits for.
    package var waitingFor: String?
    package var result: JSONObject?
    package var bugURL: String?
    package var parent: String?

    /// What clients are told about the state.
    package var status: JobStatus {
        // A job that was claimed before has been seen running.
        state == .queued && claims > 0 ? .running : state.status
    }
}

/// The names of a Taskcluster worker, as far as they are known.
package struct WorkerName: Sendable, Hashable {
    package var provisionerID: String?
    package var workerType: String?
    package var workerGroup: String?
    /// In lower case.
    package var workerID: String

    package init(
        _ workerID: String,
        group: String? = nil,
        provisionerID: String? = nil,
        workerType: String? = nil
    ) {
        self.provisionerID = provisionerID
        self.workerType = workerType
        self.workerGroup = group
        self.workerID = workerID.lowercased()
    }
}

/// One thing a job tried.
package struct JobAttempt: Sendable, Hashable {
    /// Counts from 1.
    package var number: Int
    package var method: String
    /// The controller it went through.
    package var control: String?
    /// What was run, with every secret removed.
    package var arguments: [String]
    package var started: Timestamp
    package var finished: Timestamp?
    package var exitCode: Int?
    package var outcome: AttemptOutcome?
    package var errorClass: String?
    package var summary: String?
    package var output: String?
}

/// A line of a job's history.
package struct JobEvent: Sendable, Hashable {
    package var id: Int
    package var at: Timestamp
    package var kind: String
    package var data: JSONObject
}

/// How a job ended.
package struct JobEnd: Sendable, Hashable {
    /// A terminal state.
    package var state: JobState
    package var reason: String?
    package var errorClass: String?
    /// What people are told, in a sentence; no secrets.
    package var summary: String
    package var result: JSONObject
    package var bugURL: String?

    package init(
        _ state: JobState,
        summary: String,
        reason: String? = nil,
        errorClass: String? = nil,
        result: JSONObject = [:],
        bugURL: String? = nil
    ) {
        precondition(state.isTerminal, "a job ends in a terminal state")
        self.state = state
        self.reason = reason
        self.errorClass = errorClass
        self.summary = summary
        self.result = result
        self.bugURL = bugURL
    }
}
