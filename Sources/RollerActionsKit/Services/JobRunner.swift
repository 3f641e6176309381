// SPDX-License-Identifier: MPL-2.0

import Core
package import HTTPClient
import JSON
import Logging
package import RollerKit
import Schedules

/// Runs one job from its claim to its end.
package struct JobRunner: Sendable {
    let jobs: JobStore
    let inventory: InventoryStore
    let dispatch: DispatchStore
    let registry: ActionRegistry
    let settings: ActionSettings
    let transport: any HTTPTransport
    let credentials: CredentialStore
    let quarantine: Quarantine
    let memory = ControllerMemory()
    /// How long after its start a job's programs are killed.
    let hardLimit: Duration
    /// Whether no job touches anything.
    let isDryRun: Bool

    package init(
        jobs: JobStore,
        inventory: InventoryStore,
        dispatch: DispatchStore,
        registry: ActionRegistry = .standard,
        settings: ActionSettings,
        transport: any HTTPTransport,
        credentials: CredentialStore,
        quarantine: Quarantine,
        hardLimit: Duration = .seconds(1200),
        isDryRun: Bool = false
    ) {
        self.jobs = jobs
        self.inventory = inventory
        self.dispatch = dispatch
        self.registry = registry
        self.settings = settings
        self.transport = transport
        self.credentials = credentials
        self.quarantine = quarantine
        self.hardLimit = hardLimit
        self.isDryRun = isDryRun
    }

    /// The machines of jobs that begin together, as far as they can be read now.
    func machines(of jobs: [Job]) async -> [String: MachineDetail] {
        do {
            return try await inventory.machines(ids: Set(jobs.compactMap(\.machine)))
        } catch {
            // Each job looks for its own, and says what it found.
            Logger.current.debug("machines were not read together", metadata: ["error": "\(error)"])
            return [:]
        }
    }

    /// Does the job; whatever happens is written into it.
    ///
    /// The machine is looked up unless it was read just now.
    func run(_ job: Job, on machine: MachineDetail?, _ conduct: DatabaseConduct) async {
        let end: JobEnd?
        let redactor = Redactor()
        do throws(ActionError) {
            end = try await perform(job, machine, conduct, redactor)
        } catch {
            end = Self.end(error)
        }
        guard let end else { return await letGo(job) }
        await finish(job, conduct, end, redactor)
    }

    /// Says that nothing of a lost job goes on here; whoever waits for the machine need not wait for the lease to end.
    private func letGo(_ job: Job) async {
        Logger.current.notice("a job was lost, and nothing of it goes on here", metadata: ["job": "\(job.id)"])
        do { try await dispatch.letGo(job) } catch {
            Logger.current.debug("a lost job's locks end with its lease", metadata: ["error": "\(error)"])
        }
    }

    private func perform(
        _ job: Job,
        _ machine: MachineDetail?,
        _ conduct: DatabaseConduct,
        _ redactor: Redactor
    ) async throws(ActionError) -> JobEnd {
        guard let action = registry[job.taskName] else {
            throw ActionError(.config, "this worker knows no action \(job.taskName)")
        }
        let (target, detail) = try await target(of: job, machine)
        try await begin(job)
        let actionJob = ActionJob(job)
        if job.isDryRun || isDryRun {
            let plan = try action.plan(actionJob, target, settings).map { redactor.clean($0) }
            return JobEnd(
                .succeeded,
                summary: "a trial: nothing was touched",
                result: ["dry_run": true, "plan": JSONValue(plan)]
            )
        }
        var context = ActionContext(
            job: actionJob,
            target: target,
            settings: settings,
            tools: ToolRunner(redactor: redactor),
            transport: transport,
            credentials: { try credentials.load($0) },
            conduct: conduct,
            registry: registry,
            memory: memory
        )
        // What the job still runs has no right to an effect once the job is somebody else's.
        conduct.onLoss { [tools = context.tools] in tools.kill() }
        let gate = quarantine.gate(job, detail)
        context.workers = gate
        let isolation = try await quarantine.begin(job, detail, conduct, extra: action.extraTime(settings))
        do throws(ActionError) {
            let result = try await limited(action, context, conduct)
            var details = result.details
            try await lend(job, action, target, gate, &details)
            if let isolation { await quarantine.lift(isolation) }
            details["verified"] = JSONValue(result.isVerified)
            return JobEnd(.succeeded, summary: result.summary, result: details)
        } catch {
            if let isolation { await quarantine.keepOrLift(isolation, job, error) }
            throw error
        }
    }

    private func begin(_ job: Job) async throws(ActionError) {
        guard job.state != .running else { return }
        do {
            guard try await jobs.transition(job.id, fence: job.fence, to: .running) else {
                throw ActionError(.lost, "another worker has the job")
            }
        } catch let error as ActionError {
            throw error
        } catch {
            // The lease ends, and the job, not begun, is taken again.
            throw ActionError(.lost, "the job could not be begun: \(error)")
        }
    }

    // MARK: - Limits

    private func limited(
        _ action: any RollerAction,
        _ context: ActionContext,
        _ conduct: DatabaseConduct
    ) async throws(ActionError) -> ActionResult {
        let extra = action.extraTime(settings)
        let (soft, hard) = (settings.softLimit + extra, max(settings.softLimit, hardLimit) + extra)
        let result = await withTaskGroup(of: Result<ActionResult, ActionError>?.self) { group in
            group.addTask {
                do throws(ActionError) { return .success(try await action.run(context)) } catch {
                    return .failure(error)
                }
            }
            let work = Task {
                // Ends with the group; a limit that is never reached is cancelled with it.
                try await Task.sleep(for: soft)
                conduct.stop(ActionError(.softTimeLimit, "the soft time limit of \(soft.settingsText) is over"))
                try await Task.sleep(for: hard - soft)
                conduct.stop(ActionError(.hardTimeLimit, "the hard time limit of \(hard.settingsText) is over"))
                while true {
                    context.tools.kill()
                    try await Task.sleep(for: .seconds(1))
                }
            }
            defer { work.cancel() }
            return await group.next() ?? nil
        }
        return try (result ?? .failure(ActionError(.other, "the action did not run"))).get()
    }

    // MARK: - Ends

    private static func end(_ error: ActionError) -> JobEnd? {
        let name = error.kind.name
        switch error.kind {
        case .lost: return nil
        case .canceled:
            return JobEnd(.canceled, summary: error.message, reason: name, errorClass: name, result: error.details)
        default:
            return JobEnd(
                .failed,
                summary: error.message,
                reason: name,
                errorClass: name,
                result: error.details,
                bugURL: error.bugURL
            )
        }
    }

    /// Writes the end down, however long the database is away: while the lease lasts nobody else can.
    private func finish(_ job: Job, _ conduct: DatabaseConduct, _ end: JobEnd, _ redactor: Redactor) async {
        var end = end
        end.summary = redactor.clean(end.summary)
        let (jobs, final) = (jobs, end)
        // A task of its own: the end is written although the process is told to stop.
        let task = Task {
            for attempt in 1... {
                do {
                    return try await jobs.finish(job.id, fence: job.fence, final)
                } catch {
                    if conduct.stopReason?.kind == .lost { return false }
                    Logger.current.warning(
                        "the end of a job is not written yet",
                        metadata: ["job": "\(job.id)", "attempt": "\(attempt)", "error": "\(error)"]
                    )
                    do { try await Task.sleep(for: .milliseconds(500)) } catch { return false }
                }
            }
            return false
        }
        guard await task.value else { return await letGo(job) }
        Logger.current.info(
            "job ended",
            metadata: [
                "job": "\(job.id)", "task": "\(job.taskName)", "state": "\(end.state.rawValue)",
                "reason": "\(end.reason ?? "")",
            ]
        )
    }

    // MARK: - The machine

    private func target(
        of job: Job,
        _ machine: MachineDetail?
    ) async throws(ActionError) -> (ActionTarget, MachineDetail?) {
        if let machine { return (ActionTarget(machine), machine) }
        do {
            if let id = job.machine {
                guard let detail = try await inventory.machine(id: id) else {
                    throw ActionError(.config, "the machine is not in the inventory any more")
                }
                return (ActionTarget(detail), detail)
            }
        } catch let error as ActionError {
            throw error
        } catch {
            throw ActionError(.lost, "the inventory cannot be read: \(error)")
        }
        let name = try HostName.validated(job.worker.workerID)
        guard let address = await NameLookup.address(of: name, searching: settings.searchDomains) else {
            throw ActionError(.dns, "the name of the host cannot be resolved")
        }
        return (ActionTarget(name: name, address: address), nil)
    }

    /// Loans are kept in the inventory once the machine has changed hands.
    private func lend(
        _ job: Job,
        _ action: any RollerAction,
        _ target: ActionTarget,
        _ gate: WorkerGate,
        _ details: inout JSONObject
    ) async throws(ActionError) {
        guard let lending = (action as? any LendingAction)?.lending, lending != .stays, let machine = target.machineID
        else { return }
        let quarantined = details["quarantined_until"]?.string.flatMap { Timestamp($0) }
        let ended: Timestamp?
        do {
            ended = try await dispatch.setLoan(
                job,
                machine: machine,
                borrower: lending == .out ? job.parameters["borrower"]?.string ?? job.clientID : nil,
                bug: job.parameters["bug"]?.string,
                until: job.parameters["until"]?.string,
                quarantinedUntil: quarantined
            )
        } catch {
            if let quarantined { _ = try await gate.open(ifUntil: quarantined) }
            throw ActionError(.other, "the loan could not be written down: \(error)")
        }
        // The machine is ours again, whatever the queue says; that its workers do not work yet is part of the answer.
        guard lending == .back, let ended else { return }
        do throws(ActionError) {
            details["quarantine"] = .object(try await gate.open(ifUntil: ended).json)
        } catch {
            details["quarantine"] = ["skipped": [JSONValue(error.message)]]
        }
    }
}

extension ActionJob {
    /// The job as actions see it.
    init(_ job: Job) {
        self.init(
            id: job.id,
            taskName: job.taskName,
            params: job.parameters,
            clientID: job.clientID,
            workerID: job.worker.workerID,
            workerGroup: job.worker.workerGroup,
            provisionerID: job.worker.provisionerID,
            workerType: job.worker.workerType,
            httpOrigin: job.origin
        )
    }
}

extension ActionTarget {
    /// The machine as actions see it.
    package init(_ detail: MachineDetail) {
        let machine = detail.machine
        self.init(
            machineID: machine.id,
            name: machine.name,
            fqdn: machine.fqdn,
            address: machine.ip,
            mac: machine.mac,
            bugCC: machine.bugCC,
            bootTime: machine.bootSeconds.map { .seconds($0) },
            properties: detail.properties,
            controls: detail.controls.map { Control($0) }
        )
    }
}

extension Control {
    init(_ control: MachineControl) {
        let controller = control.controller
        self.init(
            controllerID: controller.id,
            name: controller.name,
            kind: controller.kind,
            address: controller.address,
            port: controller.port,
            type: controller.type,
            options: controller.options,
            locator: control.locator,
            credential: control.locator["credential"]?.string ?? controller.credential,
            maximumConcurrency: controller.maximumConcurrency,
            minimumInterval: .milliseconds(controller.minimumInterval),
            learned: controller.learned
        )
    }
}
