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
        var path: [String]
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
    func begin(_ job: Job, _ detail: MachineDetail?, _ conduct: any JobConduct) async throws(ActionError) -> Isolation?
    {
        let policy = policies[job.taskName] ?? .none
        guard policy != .none else { return nil }
        guard let path = Self.path(job, detail) else {
            await conduct.note("quarantine", ["skipped": "the names of the worker are not known completely"])
            return nil
        }
        var isolation = Isolation(path: path, policy: policy)
        guard policy != .onFailure else { return isolation }
        let until = Timestamp.now() + span + drainTimeout
        do {
            try await declare(path, until, "roller: \(job.taskName), job \(job.id)")
            isolation.until = until
            await conduct.note("quarantine", ["until": JSONValue(until.iso8601)])
        } catch  where error.status == 404 {
            await conduct.note("quarantine", ["skipped": "the queue does not know the worker"])
            return nil
        } catch {
            throw ActionError(.other, "the worker could not be quarantined: \(error.code)")
        }
        if policy == .drain { try await drain(isolation, conduct) }
        return isolation
    }

    /// Ends a quarantine of ours; one that a person has changed since stays.
    func lift(_ isolation: Isolation) async {
        guard let until = isolation.until else { return }
        do {
            let worker = try await client.call("queue", "GET", Self.workerPath(isolation.path))
            guard worker["quarantineUntil"]?.string.flatMap({ Timestamp($0) }) == until else { return }
            try await declare(isolation.path, Timestamp.now(), "roller: done")
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
            try await declare(
                isolation.path,
                Timestamp.now() + .seconds(30 * 86400),
                "roller: \(job.taskName) failed, job \(job.id)\(bug)"
            )
        } catch {
            Logger.current.warning("a worker was not quarantined", metadata: ["error": "\(error)"])
        }
    }

    // MARK: - The queue

    private func declare(_ path: [String], _ until: Timestamp, _ info: String) async throws(TaskclusterError) {
        let body: JSONValue = ["quarantineUntil": JSONValue(until.iso8601), "quarantineInfo": JSONValue(info)]
        _ = try await client.call("queue", "PUT", Self.workerPath(path), body: body)
    }

    /// Waits until no task of the worker runs any more.
    private func drain(_ isolation: Isolation, _ conduct: any JobConduct) async throws(ActionError) {
        let end = ContinuousClock.now + drainTimeout
        while true {
            try await conduct.checkpoint()
            do {
                guard try await isBusy(isolation.path) else { return }
            } catch {
                throw ActionError(.other, "the queue does not tell the worker's tasks: \(error.code)")
            }
            guard ContinuousClock.now < end else {
                await lift(isolation)
                throw ActionError(.timeout, "the worker's task did not end in time")
            }
            do { try await Task.sleep(for: .seconds(2)) } catch { throw ActionError(.canceled, "interrupted") }
        }
    }

    private func isBusy(_ path: [String]) async throws(TaskclusterError) -> Bool {
        let worker = try await client.call("queue", "GET", Self.workerPath(path))
        for task in (worker["recentTasks"]?.array ?? []).suffix(5) {
            guard let id = task["taskId"]?.string, let run = task["runId"]?.int else { continue }
            let status = try await client.queue.status(id)
            if status["status"]?["runs"]?[run]?["state"]?.string == "running" { return true }
        }
        return false
    }

    private static func workerPath(_ names: [String]) -> [String] {
        ["provisioners", names[0], "worker-types", names[1], "workers", names[2], names[3]]
    }

    /// The four names of the worker: those of the request, completed from the inventory.
    private static func path(_ job: Job, _ detail: MachineDetail?) -> [String]? {
        let known = detail?.workers.first { $0.workerID == job.worker.workerID } ?? detail?.workers.first
        guard let provisioner = job.worker.provisionerID ?? known?.provisionerID,
            let type = job.worker.workerType ?? known?.workerType,
            let group = job.worker.workerGroup ?? known?.workerGroup
        else { return nil }
        return [provisioner, type, group, job.worker.workerID]
    }
}
