// SPDX-License-Identifier: MPL-2.0

import Core
package import JSON
import Logging
import RollerKit
import Schedules
package import TaskclusterClient

/// Keeps a Taskcluster worker from taking tasks while its machine is worked on.
package struct Quarantine: Sendable {
    /// What is done for an action.
    package enum Policy: String, Sendable, Hashable {
        /// Nothing.
        case none
        /// The worker gets no more tasks.
        case before
        /// The same, and its running task ends first.
        case drain
        /// The worker gets no more tasks when the action failed.
        case onFailure = "on_failure"
    }

    /// A quarantine that we declared.
    package struct Isolation: Sendable {
        var worker: QueueWorker
        var until: Timestamp?
        var policy: Policy
    }

    private let client: TaskclusterClient
    private let policies: [String: Policy]
    private let drainTimeout: Duration
    private let span: Duration

    /// Reads policies such as `{"reboot": "drain"}`.
    package init(
        client: TaskclusterClient,
        policies: [String: Policy],
        drainTimeout: Duration = .seconds(3600),
        span: Duration
    ) {
        self.client = client
        self.policies = policies
        self.drainTimeout = drainTimeout
        self.span = span
    }

    /// The policies of a setting; nil when it is not well formed.
    package static func policies(_ json: JSONValue) -> [String: Policy]? {
        guard let members = json.object else { return nil }
        var result: [String: Policy] = [:]
        for (name, value) in members {
            guard let policy = value.string.flatMap(Policy.init(rawValue:)) else { return nil }
            result[name] = policy
        }
        return result
    }

    /// Isolates the worker of a job as the policy of its action wants, and waits for its task.
    func begin(
        _ job: Job,
        _ detail: MachineDetail?,
        _ conduct: any JobConduct,
        extra: Duration
    ) async throws(ActionError) -> Isolation? {
        let policy = policies[job.taskName] ?? .none
        guard policy != .none else { return nil }
        guard let worker = QueueWorker(job, detail) else {
            await conduct.note("quarantine", ["skipped": "the names of the worker are not known completely"])
            return nil
        }
        var isolation = Isolation(worker: worker, policy: policy)
        guard policy != .onFailure else { return isolation }
        let until = Timestamp.now() + span + extra + drainTimeout
        do {
            try await worker.declare(until, "roller: \(job.taskName), job \(job.id)", client)
            isolation.until = until
            await conduct.note("quarantine", ["until": JSONValue(until.iso8601)])
        } catch  where error.status == 404 {
            await conduct.note("quarantine", ["skipped": "the queue does not know the worker"])
            return nil
        } catch {
            throw ActionError(.other, "the worker could not be quarantined: \(error.code)")
        }
        if policy == .drain {
            do throws(ActionError) {
                try await drain(isolation, conduct)
            } catch {
                // Nothing was done to the machine: its worker may go on.
                await lift(isolation)
                throw error
            }
        }
        return isolation
    }

    /// Ends a quarantine of ours; one that a person has changed since stays.
    func lift(_ isolation: Isolation) async {
        guard let until = isolation.until else { return }
        do {
            guard try await isolation.worker.quarantinedUntil(client) == until else { return }
            try await isolation.worker.declare(.now(), "roller: done", client)
        } catch {
            Logger.current.warning("a quarantine was not lifted", metadata: ["error": "\(error)"])
        }
    }

    /// After a failure: a worker that is not to work again stays away, others come back.
    func keepOrLift(_ isolation: Isolation, _ job: Job, _ failure: ActionError) async {
        guard isolation.policy == .onFailure, failure.kind != .lost, failure.kind != .canceled else {
            if failure.kind != .lost { await lift(isolation) }
            return
        }
        let bug = failure.bugURL.map { ", bug \($0)" } ?? ""
        do {
            try await isolation.worker.declare(
                Timestamp.now() + .seconds(30 * 86400),
                "roller: \(job.taskName) failed, job \(job.id)\(bug)",
                client
            )
        } catch {
            Logger.current.warning("a worker was not quarantined", metadata: ["error": "\(error)"])
        }
    }

    // MARK: - The queue

    /// Waits until no task of the worker runs any more.
    private func drain(_ isolation: Isolation, _ conduct: any JobConduct) async throws(ActionError) {
        let end = ContinuousClock.now + drainTimeout
        while true {
            try await conduct.checkpoint()
            do {
                guard try await isolation.worker.isBusy(client) else { return }
            } catch {
                throw ActionError(.other, "the queue does not tell the worker's tasks: \(error.code)")
            }
            guard ContinuousClock.now < end else {
                throw ActionError(.timeout, "the worker's task did not end in time")
            }
            do { try await Task.sleep(for: .seconds(2)) } catch { throw ActionError(.canceled, "interrupted") }
        }
    }

    /// The workers of a machine, for actions that close and open their door themselves.
    func gate(_ job: Job, _ detail: MachineDetail?) -> WorkerGate { WorkerGate(client: client, job, detail) }
}
