// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import Expressions
import JSON
import JSONSchema
import Schedules

extension RollerAPI {
    /// Answers a request for a job.
    func create(_ request: RollerRequest, _ route: RollerRoute, _ caller: Caller) async throws -> RawResponse {
        let target = Target(request, route)
        let task = request.option("task_name")
        let grant = try gate.grant(task, target.worker, of: caller, catalogue: catalogue)
        // The spelling of the request decides, as it always did; whoever is not managed may still be looked at.
        if let task, let action = catalogue[task], action.needsMachine || !action.isReadOnly,
            let id = target.rawWorkerID, !Self.allows(id, settings.validWorker)
        {
            throw Refusal(404, "Not a managed host.")
        }
        let (action, parameters) = try validated(request, target, task, caller)
        let machine = try await machine(for: target, action, isStrict: grant == .named)
        let isDryRun = settings.isDryRun || request.flag("dry_run")
        if let machine { try await check(action, machine, isDryRun: isDryRun, request, caller) }

        var new = NewJob(
            action,
            parameters: parameters,
            machine: machine?.machine.id,
            worker: target.worker.completed(by: machine?.workers ?? []),
            clientID: caller.clientID,
            source: target.source
        )
        new.origin = request.raw.header("Origin").flatMap { $0 == "null" || $0.isEmpty ? nil : $0 }
        new.machineRecord = machine?.machine
        new.isDryRun = isDryRun
        new.pool = machine?.pool ?? "default"
        new.priority = action.name == "ipmi_on" ? 90 : 50
        new.deadline = request.time + settings.patience
        new.idempotencyKey = try idempotencyKey(request)
        new.sourceAddress = request.sourceAddress
        new.requestID = request.id
        let limits = gate.may("override", caller) ? nil : settings.limits
        return try await answer(jobs.create(new, duplicates: settings.duplicates, limits: limits))
    }

    private func answer(_ creation: JobCreation) throws -> RawResponse {
        switch creation {
        case .created(let job):
            return Self.json(201, JobView.creation(job), headers: Self.place(job))
        case .joined(let job), .repeated(let job):
            return Self.json(
                200,
                JobView.creation(job),
                headers: Self.place(job) + [(name: "X-Roller-Duplicate", value: "1")]
            )
        case .rejected(let job):
            throw Refusal(
                409,
                ["task_name": "Task already scheduled for that TC worker's machine.", "task_id": .string(job.id)]
            )
        case .keyTaken(let job):
            throw Refusal(
                409,
                ["detail": "This Idempotency-Key was used for another request.", "task_id": .string(job.id)]
            )
        case .throttled(let seconds):
            throw Refusal(
                429,
                ["detail": .string("Request was throttled. Expected available in \(seconds) seconds.")],
                headers: [(name: "Retry-After", value: String(seconds))]
            )
        }
    }

    private static func place(_ job: Job) -> [(name: String, value: String)] {
        [(name: "Location", value: "/api/v1/jobs/\(job.id)")]
    }

    private func idempotencyKey(_ request: RollerRequest) throws -> String? {
        guard let key = request.raw.header("Idempotency-Key"), !key.isEmpty else { return nil }
        guard key.utf8.count <= 200, key.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            throw Refusal.detail(400, "An Idempotency-Key has 1 to 200 visible characters.")
        }
        return key
    }

    // MARK: - Fields

    /// Whether a name is one of those that an expression allows, from its first character on; not to know is no.
    private static func allows(_ name: String, _ expression: RegularExpression?) -> Bool {
        guard let expression else { return true }
        return (try? expression.matches(name, at: .start)) == true
    }

    private static let blank = "This field may not be blank."
    private static let mismatch = "This value does not match the required pattern."

    /// The action and its parameters; all that is wrong with the request is told at once.
    private func validated(
        _ request: RollerRequest,
        _ target: Target,
        _ task: String?,
        _ caller: Caller
    ) throws -> (ActionDescription, JSONObject) {
        var problems = JSONObject()
        func note(_ field: String, _ message: String) {
            problems[field] = .array((problems[field]?.array ?? []) + [.string(message)])
        }
        let action = task.flatMap { catalogue[$0] }
        if action == nil { note("task_name", task == nil ? Self.blank : Self.mismatch) }
        if let id = target.rawWorkerID {
            if !Names.isWorkerWord(id) || id.hasPrefix("-") { note(target.workerField, Self.mismatch) }
        } else {
            note(target.workerField, "This field is required.")
        }
        for (field, value) in [
            ("worker_group", target.worker.workerGroup), ("provisioner_id", target.worker.provisionerID),
            ("worker_type", target.worker.workerType),
        ] {
            if let value, !Names.isWorkerWord(value) || value.hasPrefix("-") { note(field, Self.mismatch) }
        }
        if !Self.allows(caller.clientID, settings.validClient) { note("client_id", Self.mismatch) }
        var parameters = JSONObject()
        if let action {
            parameters = Self.parameters(of: action, in: request)
            let schema = try schemas[action.name] ?? JSONSchema(action.parameters, unknownKeywords: .ignore)
            for problem in schema.validate(.object(parameters)) {
                let words = problem.path.split(separator: "/")
                note(words.first.map(String.init) ?? "params", "\(problem.message).")
            }
        }
        guard problems.isEmpty, let action else { throw Refusal(400, .object(problems)) }
        return (action, parameters)
    }

    /// The options that an action takes, as values of the types it wants.
    private static func parameters(of action: ActionDescription, in request: RollerRequest) -> JSONObject {
        var parameters = JSONObject()
        for (name, schema) in action.parameters["properties"]?.object ?? [:] {
            guard let text = request.option(name) else { continue }
            switch schema["type"]?.string {
            case "integer": parameters[name] = Int(text).map { JSONValue($0) } ?? .string(text)
            case "number": parameters[name] = Double(text).map { JSONValue($0) } ?? .string(text)
            case "boolean":
                parameters[name] =
                    text == "true" || text == "1" ? true : text == "false" || text == "0" ? false : .string(text)
            default: parameters[name] = .string(text)
            }
        }
        return parameters
    }

    // MARK: - Machine

    /// The machine behind the worker; nil for one that nobody knows and that is only looked at.
    private func machine(
        for target: Target,
        _ action: ActionDescription,
        isStrict: Bool
    ) async throws -> MachineDetail? {
        let isLook = !action.needsMachine && action.isReadOnly
        switch try await inventory.resolve(target.worker, patterns: settings.fqdnPatterns, onlyWorkers: isStrict) {
        case .machine(let machine):
            return machine
        case .ambiguous(let candidates):
            throw Refusal(409, ["detail": "Ambiguous worker id", "candidates": .array(candidates.map(JobView.worker))])
        case .unknown:
            if isLook, settings.allowsUnknownWorkers { return nil }
            throw Refusal(404, ["tc_worker_id": "TC worker with that ID not found."])
        case .unmanaged:
            if isLook, settings.allowsUnknownWorkers { return nil }
            throw Refusal(404, ["tc_worker_id": "Not managing hardware running that TC worker."])
        }
    }

    /// Refuses what may not be done to a machine, or cannot.
    private func check(
        _ action: ActionDescription,
        _ detail: MachineDetail,
        isDryRun: Bool,
        _ request: RollerRequest,
        _ caller: Caller
    ) async throws {
        if !action.isReadOnly, !isDryRun, !gate.may("override", caller),
            !(action.name == "return_loan" && detail.machine.state == .loaned),
            let obstacle = try await inventory.obstacle(machine: detail.machine, at: request.time)
        {
            throw Refusal.detail(409, obstacle)
        }
        let kinds = Set(detail.controls.map(\.controller.kind))
        if !action.controls.isEmpty, kinds.isDisjoint(with: action.controls) {
            let wanted = action.controls.map(\.rawValue).joined(separator: " or ")
            throw Refusal(
                400,
                ["task_name": [.string("No \(wanted) control is configured for this machine.")]]
            )
        }
        if action.needsConfirmation, request.option("confirm")?.lowercased() != detail.machine.name.lowercased() {
            throw Refusal(400, ["confirm": ["Repeat the name of the machine to confirm."]])
        }
    }
}

/// The worker a request names, in whichever of the three ways.
private struct Target {
    let worker: WorkerName
    /// As it was spelled; nil if it is missing.
    let rawWorkerID: String?
    /// What the field is called in this generation.
    let workerField: String
    let source: JobSource

    init(_ request: RollerRequest, _ route: RollerRoute) {
        var group = request.option("worker_group")
        switch route {
        case .workerGroupJobs(let id, let named):
            rawWorkerID = id
            group = named
            workerField = "worker_id"
            source = .apiSecond
        case .workerJobs(let id):
            rawWorkerID = id
            workerField = "worker_id"
            source = .api
        default:
            rawWorkerID = request.option("tc_worker_id")
            workerField = "tc_worker_id"
            source = .apiFirst
        }
        worker = WorkerName(
            rawWorkerID ?? "",
            group: group,
            provisionerID: request.option("provisioner_id"),
            workerType: request.option("worker_type")
        )
    }
}

extension WorkerName {
    /// The name with what is missing taken from the one known worker that fits.
    fileprivate func completed(by known: [WorkerName]) -> WorkerName {
        let fitting = known.filter { $0.workerID == workerID && (workerGroup == nil || $0.workerGroup == workerGroup) }
        guard fitting.count == 1, let one = fitting.first else { return self }
        return WorkerName(
            workerID,
            group: workerGroup ?? one.workerGroup,
            provisionerID: provisionerID ?? one.provisionerID,
            workerType: workerType ?? one.workerType
        )
    }
}
