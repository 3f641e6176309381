// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Schedules

extension RollerAPI {
    /// Answers with a job; `wait` waits for its state to change.
    func job(_ id: String, _ request: RollerRequest, _ caller: Caller?) async throws -> RawResponse {
        if let caller { try gate.require("get-job", of: caller) }
        guard var row = try await jobs.row(id) else { throw Refusal.notFound }
        if let text = request.option("wait") {
            guard let seconds = Int(text), (0...30).contains(seconds) else {
                throw Refusal(400, ["wait": ["A whole number of seconds from 0 to 30."]])
            }
            if seconds > 0, !row.job.state.isTerminal {
                let seen = row.job.state
                row =
                    try await request.raw.withDisconnect { [jobs] in
                        try await jobs.waitForChange(id, from: seen, limit: .seconds(seconds))
                    } ?? row
            }
        }
        let view = JobView.detail(
            row,
            attempts: caller == nil ? [] : try await jobs.attempts(of: id),
            queuePosition: try await jobs.queuePosition(of: row.job)
        )
        return Self.json(200, .object(caller == nil ? JobView.anonymous(view) : view))
    }

    /// Lists jobs, newest first.
    func list(_ request: RollerRequest, _ route: RollerRoute, _ caller: Caller) async throws -> RawResponse {
        try gate.require("list-jobs", of: caller)
        var filter = JobStore.Filter()
        filter.workerID = (request.option("worker_id") ?? request.option("tc_worker_id"))?.lowercased()
        filter.workerGroup = request.option("worker_group")
        switch route {
        case .workerJobs(let worker): filter.workerID = worker.lowercased()
        case .workerGroupJobs(let worker, let group):
            filter.workerID = worker.lowercased()
            filter.workerGroup = group
        default: break
        }
        filter.taskName = request.option("task_name")
        filter.clientID = request.option("client_id")
        if let name = request.option("machine") {
            guard let machine = try await inventory.machine(name: name) else {
                return Self.json(200, ["jobs": []])
            }
            filter.machine = machine.machine.id
        }
        var problems = JSONObject()
        if let text = request.option("status") {
            filter.status = JobStatus(rawValue: text.uppercased())
            if filter.status == nil { problems["status"] = ["Not a status."] }
        }
        for (name, path) in [("since", \JobStore.Filter.since), ("until", \JobStore.Filter.until)] {
            guard let text = request.option(name) else { continue }
            filter[keyPath: path] = Timestamp(text)
            if filter[keyPath: path] == nil { problems[name] = ["Not a moment in RFC 3339."] }
        }
        let limit = Int(request.option("limit") ?? "100") ?? 0
        if !(1...1000).contains(limit) { problems["limit"] = ["A whole number from 1 to 1000."] }
        var cursor: (created: String, id: String)?
        if let token = request.option("continuationToken") {
            let values = (try? Continuation.decode(token)) ?? []
            if values.count == 2, let created = values[0].string, let id = values[1].string, JobID.isValid(id) {
                cursor = (created, id)
            } else {
                problems["continuationToken"] = ["Not a token of an earlier page."]
            }
        }
        guard problems.isEmpty else { throw Refusal(400, .object(problems)) }
        let rows = try await jobs.list(filter, after: cursor, limit: limit + 1)
        var answer: JSONObject = ["jobs": .array(rows.prefix(limit).map { .object(JobView.summary($0)) })]
        if rows.count > limit, let last = rows.prefix(limit).last {
            answer["continuationToken"] = .string(
                Continuation.encode([.string(last.createdText), .string(last.job.id)])
            )
        }
        return Self.json(200, .object(answer))
    }

    /// Cancels a job; whoever asked for it may, and whoever may cancel all.
    func cancel(_ id: String, _ request: RollerRequest, _ caller: Caller) async throws -> RawResponse {
        guard let job = try await jobs.job(id) else { throw Refusal.notFound }
        if job.clientID != caller.clientID { try gate.require("cancel", of: caller) }
        let cancellation = try await jobs.cancel(
            id,
            by: caller.clientID,
            sourceAddress: request.sourceAddress,
            requestID: request.id
        )
        guard let cancellation, let row = try await jobs.row(id) else { throw Refusal.notFound }
        let view = JSONValue.object(JobView.summary(row))
        if case .ended = cancellation { return Self.json(409, view) }
        return Self.json(202, view)
    }

    /// Takes down what a machine tells that was installed anew; the token in the address is all its credentials.
    ///
    /// The body may say that it went wrong: `{"status": "failed", "message": "no disk"}`.
    func callback(_ id: String, _ request: RollerRequest) async throws -> RawResponse {
        guard let token = request.option("token") else { throw Refusal.notFound }
        var report = JobStore.InstallationReport(isGood: true)
        if try await !request.body(limit: 1 << 16).isEmpty {
            let body = try await request.json(limit: 1 << 16)
            let status = body["status"]?.string ?? "ok"
            guard ["ok", "failed"].contains(status) else { throw Refusal(400, ["status": ["ok or failed."]]) }
            report = JobStore.InstallationReport(isGood: status == "ok", message: body["message"]?.string)
        }
        let outcome = try await jobs.report(
            report,
            of: id,
            token: token,
            sourceAddress: request.sourceAddress,
            requestID: request.id
        )
        switch outcome {
        case .taken: return Self.json(202, ["task_id": .string(id)])
        case .tooLate: throw Refusal.detail(409, "The job is over.")
        case .unknown: throw Refusal.notFound
        }
    }

    /// Answers with a job's history as text; `follow` goes on until the job ends.
    func log(_ id: String, _ request: RollerRequest, _ caller: Caller) async throws -> RawResponse {
        try gate.require("get-job", of: caller)
        guard try await jobs.job(id) != nil else { throw Refusal.notFound }
        let reader = LogReader(jobs: jobs, id: id, follows: request.flag("follow"))
        return RawResponse(
            status: 200,
            headers: [(name: "Content-Type", value: "text/plain; charset=utf-8")],
            body: .stream { try await reader.next() }
        )
    }
}

/// Reads a job's history piece by piece.
private actor LogReader {
    private let jobs: JobStore
    private let id: String
    private let follows: Bool
    private var last = 0
    private var isDone = false

    init(jobs: JobStore, id: String, follows: Bool) {
        self.jobs = jobs
        self.id = id
        self.follows = follows
    }

    /// The next lines, waiting for some where that makes sense; nil at the end.
    func next() async throws -> [UInt8]? {
        while !isDone {
            // The state is read first: what is written before the end is then seen for certain.
            let isOver = try await jobs.job(id)?.state.isTerminal ?? true
            let events = try await jobs.events(of: id, after: last, limit: 200)
            if let newest = events.last {
                last = newest.id
                return Array(events.map(JobView.line).joined().utf8)
            }
            if isOver || !follows {
                isDone = true
            } else {
                try await Task.sleep(for: .milliseconds(250))
            }
        }
        return nil
    }
}
