// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Logging
import RollerKit
import Schedules
import TaskclusterClient

/// The Taskcluster workers of one machine, and the door through which tasks come to them.
package struct WorkerGate: Sendable {
    let client: TaskclusterClient
    /// Those whose four names are known.
    let workers: [QueueWorker]

    /// The door of a machine; the request may know names that the inventory does not.
    init(client: TaskclusterClient, _ job: Job, _ detail: MachineDetail?) {
        self.client = client
        let known = detail?.workers.compactMap { QueueWorker($0) } ?? []
        let asked = QueueWorker(job, detail)
        workers = known + (asked.map { known.contains($0) ? [] : [$0] } ?? [])
    }

    /// What came of closing or opening a door.
    struct Change: Sendable, Hashable {
        /// The workers it concerned.
        var done: [String] = []
        /// The others, with the reason.
        var skipped: [String] = []

        var json: JSONObject { ["workers": JSONValue(done), "skipped": JSONValue(skipped)] }
    }

    /// Keeps the workers from taking tasks; those that the queue has never seen take none anyway.
    func close(until: Timestamp, because info: String) async throws(ActionError) -> Change {
        var change = Change()
        if workers.isEmpty { change.skipped.append("the names of the worker are not known completely") }
        for worker in workers {
            do {
                try await worker.declare(until, info, client)
                change.done.append(worker.description)
            } catch  where error.status == 404 {
                change.skipped.append("\(worker): the queue does not know it")
            } catch {
                throw ActionError(.other, "the worker \(worker) could not be quarantined: \(error.code)")
            }
        }
        return change
    }

    /// Lets the workers take tasks again; with a moment, only those whose quarantine still ends then.
    ///
    /// A person may have prolonged it meanwhile, and had a reason.
    func open(ifUntil: Timestamp? = nil) async throws(ActionError) -> Change {
        var change = Change()
        for worker in workers {
            do {
                let until = try await worker.quarantinedUntil(client)
                guard let until, until > .now() else {
                    change.skipped.append("\(worker): is not in quarantine")
                    continue
                }
                guard ifUntil == nil || until == ifUntil else {
                    change.skipped.append("\(worker): somebody has changed the quarantine since")
                    continue
                }
                try await worker.declare(.now(), "roller: done", client)
                change.done.append(worker.description)
            } catch  where error.status == 404 {
                change.skipped.append("\(worker): the queue does not know it")
            } catch {
                throw ActionError(.other, "the quarantine of \(worker) could not be lifted: \(error.code)")
            }
        }
        return change
    }
}

/// A worker as the queue calls it.
struct QueueWorker: Sendable, Hashable, CustomStringConvertible {
    let provisioner: String
    let type: String
    let group: String
    let id: String

    /// Nil unless all four names are known.
    init?(_ name: WorkerName) {
        guard let provisioner = name.provisionerID, let type = name.workerType, let group = name.workerGroup else {
            return nil
        }
        (self.provisioner, self.type, self.group, id) = (provisioner, type, group, name.workerID)
    }

    /// The worker that a job names, completed from the inventory.
    init?(_ job: Job, _ detail: MachineDetail?) {
        let known = detail?.workers.first { $0.workerID == job.worker.workerID } ?? detail?.workers.first
        self.init(
            WorkerName(
                job.worker.workerID,
                group: job.worker.workerGroup ?? known?.workerGroup,
                provisionerID: job.worker.provisionerID ?? known?.provisionerID,
                workerType: job.worker.workerType ?? known?.workerType
            )
        )
    }

    var description: String { "\(provisioner)/\(type)/\(group)/\(id)" }

    private var path: [String] { ["provisioners", provisioner, "worker-types", type, "workers", group, id] }

    /// Sets the end of the quarantine.
    func declare(_ until: Timestamp, _ info: String, _ client: TaskclusterClient) async throws(TaskclusterError) {
        let body: JSONValue = ["quarantineUntil": JSONValue(until.iso8601), "quarantineInfo": JSONValue(info)]
        _ = try await client.call("queue", "PUT", path, body: body)
    }

    /// The end of the quarantine, whether it is over or not.
    func quarantinedUntil(_ client: TaskclusterClient) async throws(TaskclusterError) -> Timestamp? {
        try await client.call("queue", "GET", path)["quarantineUntil"]?.string.flatMap { Timestamp($0) }
    }

    /// Whether one of its latest tasks still runs.
    func isBusy(_ client: TaskclusterClient) async throws(TaskclusterError) -> Bool {
        let worker = try await client.call("queue", "GET", path)
        for task in (worker["recentTasks"]?.array ?? []).suffix(5) {
            guard let id = task["taskId"]?.string, let run = task["runId"]?.int else { continue }
            let status = try await client.queue.status(id)
            if status["status"]?["runs"]?[run]?["state"]?.string == "running" { return true }
        }
        return false
    }
}
