// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Schedules

/// The routes of roller's predecessor, for scripts that still call them; off unless a setting says otherwise.
///
/// The predecessor asked nobody who they were. Here its routes want the same signatures and scopes as all others, and
/// what they ask for becomes jobs like all others.
extension RollerAPI {
    /// What the predecessor's actions are called here; what has no name here makes no sense for real machines.
    static let slaveActions = [
        "reboot": "reboot", "get_uptime": "uptime", "disable": "quarantine",
        "get_last_activity": nil, "shutdown_buildslave": nil, "aws_create_instance": nil, "terminate": nil,
        "start": nil, "stop": nil,
    ]

    /// The longest time for which a request may wait for its job.
    private static let longestWait = 300

    /// Answers what is known of a machine.
    func slave(_ name: String, _ request: RollerRequest, _ caller: Caller) async throws -> RawResponse {
        try gate.require("inventory:read", of: caller)
        guard let detail = try await inventory.machine(name: name) else { throw Refusal.notFound }
        let machine = detail.machine
        let outlet = detail.controls.first { $0.controller.kind == .snmp }.flatMap { control in
            control.controller.address.map { "\($0):\(control.locator["outlet"]?.string ?? "")" }
        }
        return Self.json(
            200,
            [
                "name": .string(machine.name), "fqdn": JobView.text(machine.fqdn), "ip": JobView.text(machine.ip),
                "enabled": JSONValue(!machine.isOutOfService(at: request.time)),
                "notes": JobView.text(machine.stateReason), "pdu": JobView.text(outlet),
            ]
        )
    }

    /// Answers with the latest results of all machines, by machine, action and request.
    func slaveResults(_ caller: Caller) async throws -> RawResponse {
        try gate.require("list-jobs", of: caller)
        var results = JSONObject()
        for row in try await jobs.list(JobStore.Filter(), after: nil, limit: 1000) {
            guard let action = Self.slaveAction(row.job) else { continue }
            let name = row.machine?.name ?? row.job.worker.workerID
            var ofSlave = results[name]?.object ?? [:]
            Self.add(row.job, of: action, to: &ofSlave)
            results[name] = .object(ofSlave)
        }
        return Self.json(200, .object(results))
    }

    /// Begins an action on a machine, or answers what came of earlier ones.
    func slaveAction(
        _ name: String,
        _ action: String,
        _ request: RollerRequest,
        _ method: String,
        _ caller: Caller
    ) async throws -> RawResponse {
        guard let known = Self.slaveActions[action] else { throw Refusal.notFound }
        guard let task = known else {
            throw Refusal.detail(501, "\(action) is an action of build slaves, which there are none of here.")
        }
        return try await method == "POST"
            ? begin(task, name, request, caller) : earlier(task, action, name, request, caller)
    }

    private func begin(
        _ task: String,
        _ name: String,
        _ request: RollerRequest,
        _ caller: Caller
    ) async throws -> RawResponse {
        let body = String(decoding: try await request.body(limit: 1 << 16), as: UTF8.self)
        guard let form = RollerRequest.query(body[...]) else {
            throw Refusal.detail(400, "The form is not well formed.")
        }
        let wait = form["waittime"].flatMap { $0.isEmpty ? nil : $0 } ?? "0"
        guard let seconds = Int(wait), seconds >= 0 else {
            throw Refusal(400, ["waittime": ["A whole number of seconds."]])
        }
        var query = ["task_name": task]
        query["reason"] = form["reason"]
        let asked = RollerRequest(raw: request.raw, query: query, sourceAddress: request.sourceAddress)
        let worker = String(name.prefix { $0 != "." })
        let created = try await create(asked, .workerJobs(worker: worker), caller)
        guard case .bytes(let bytes) = created.body, let id = try JSONValue(parsing: bytes)["task_id"]?.string,
            var job = try await jobs.job(id)
        else { throw Refusal.notFound }
        let end = ContinuousClock.now + .seconds(min(seconds, Self.longestWait))
        while !job.state.isTerminal, ContinuousClock.now < end {
            let state = job.state
            let changed = try await request.raw.withDisconnect { [jobs] in
                try await jobs.waitForChange(id, from: state, limit: end - ContinuousClock.now)
            }
            guard let changed else { break }
            job = changed.job
        }
        return Self.json(job.state.isTerminal ? 200 : 202, .object(Self.slaveResult(job)))
    }

    private func earlier(
        _ task: String,
        _ action: String,
        _ name: String,
        _ request: RollerRequest,
        _ caller: Caller
    ) async throws -> RawResponse {
        try gate.require("get-job", of: caller)
        if let id = request.option("requestid") {
            guard let job = try await jobs.job(id), job.taskName == task else { throw Refusal.notFound }
            return Self.json(200, .object(Self.slaveResult(job)))
        }
        guard let machine = try await inventory.machine(name: name) else { throw Refusal.notFound }
        var filter = JobStore.Filter()
        filter.machine = machine.machine.id
        filter.taskName = task
        var results: JSONObject = [action: [:]]
        for row in try await jobs.list(filter, after: nil, limit: 100) { Self.add(row.job, of: action, to: &results) }
        return Self.json(200, .object(results))
    }

    // MARK: - Results

    private static func slaveAction(_ job: Job) -> String? {
        slaveActions.first { $0.value == job.taskName }?.key
    }

    private static func add(_ job: Job, of action: String, to results: inout JSONObject) {
        var all = results[action]?.object ?? [:]
        all[job.id] = .object(slaveResult(job))
        results[action] = .object(all)
    }

    /// A job as the predecessor told of it: four states, and moments as seconds since 1970, 0 for none.
    static func slaveResult(_ job: Job) -> JSONObject {
        func seconds(_ moment: Timestamp?) -> JSONValue { JSONValue(Double(moment?.milliseconds ?? 0) / 1000) }
        let state =
            switch job.status {
            case .pending: 0
            case .running: 1
            case .complete: 2
            case .failed, .canceled: 3
            }
        let text = job.result?["text"]?.string ?? job.reason ?? job.errorClass ?? job.state.rawValue
        return [
            "state": JSONValue(state), "text": .string(text), "request_timestamp": seconds(job.created),
            "start_timestamp": seconds(job.started), "finish_timestamp": seconds(job.finished),
            "requestid": .string(job.id),
        ]
    }
}
