// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// Jobs as clients see them.
enum JobView {
    /// What all three generations of clients look for after they have asked for a job.
    static func creation(_ job: Job) -> JSONValue {
        .object(members(job))
    }

    private static func members(_ job: Job) -> JSONObject {
        [
            "task_id": .string(job.id),
            "http_origin": text(job.origin),
            "client_id": .string(job.clientID),
            "provisioner_id": text(job.worker.provisionerID),
            "worker_type": text(job.worker.workerType),
            "worker_group": text(job.worker.workerGroup),
            "worker_id": .string(job.worker.workerID),
            "task_name": .string(job.taskName),
            "tc_worker_id": .string(job.worker.workerID),
            "status": .string(job.status.rawValue),
        ]
    }

    /// A job in lists.
    static func summary(_ row: JobStore.Row) -> JSONObject {
        let job = row.job
        var view = members(job)
        view["state"] = .string(job.state.rawValue)
        view["reason"] = text(job.reason)
        view["error_class"] = text(job.errorClass)
        view["created_at"] = .string(job.created.iso8601)
        view["started_at"] = text(job.started?.iso8601)
        view["finished_at"] = text(job.finished?.iso8601)
        view["machine"] =
            row.machine.map {
                ["id": .string($0.id), "name": .string($0.name), "fqdn": text($0.fqdn)]
            } ?? .null
        view["dry_run"] = JSONValue(job.isDryRun)
        view["params"] = .object(job.parameters)
        view["source"] = .string(job.source.rawValue)
        view["waiting_for"] = text(job.waitingFor)
        view["cancel_requested"] = JSONValue(job.isCancelRequested)
        view["result"] = job.result.map(JSONValue.object) ?? .null
        view["bug_url"] = text(job.bugURL)
        view["parent"] = text(job.parent)
        return view
    }

    /// A job with all that was tried.
    static func detail(_ row: JobStore.Row, attempts: [JobAttempt], queuePosition: Int?) -> JSONObject {
        var view = summary(row)
        view["attempts"] = .array(attempts.map(attempt))
        view["queue_position"] = queuePosition.map { JSONValue($0) } ?? .null
        return view
    }

    /// What those may see who know a job's id and nothing else.
    static func anonymous(_ view: JSONObject) -> JSONObject {
        var view = view
        for name in ["client_id", "attempts", "params"] { view.removeValue(forKey: name) }
        return view
    }

    private static func attempt(_ attempt: JobAttempt) -> JSONValue {
        [
            "n": JSONValue(attempt.number),
            "method": .string(attempt.method),
            "control": text(attempt.control),
            "arguments": JSONValue(attempt.arguments),
            "started_at": .string(attempt.started.iso8601),
            "finished_at": text(attempt.finished?.iso8601),
            "exit_code": attempt.exitCode.map { JSONValue($0) } ?? .null,
            "outcome": text(attempt.outcome?.rawValue),
            "error_class": text(attempt.errorClass),
            "summary": text(attempt.summary),
        ]
    }

    /// The names of a worker.
    static func worker(_ worker: WorkerName) -> JSONValue {
        [
            "provisioner_id": text(worker.provisionerID), "worker_type": text(worker.workerType),
            "worker_group": text(worker.workerGroup), "worker_id": .string(worker.workerID),
        ]
    }

    static func text(_ text: String?) -> JSONValue { text.map(JSONValue.string) ?? .null }

    // MARK: - Log

    /// A line of history as people read it.
    static func line(_ event: JobEvent) -> String {
        let time = event.at.iso8601
        if event.kind == "log", let text = event.data["text"]?.string {
            return text.split(separator: "\n", omittingEmptySubsequences: false).map { "\(time)   \($0)\n" }.joined()
        }
        let words = event.data.map { "\($0.key)=\($0.value.string ?? $0.value.text())" }
        return ([time, event.kind] + words).joined(separator: " ").replacing("\n", with: " ") + "\n"
    }
}
