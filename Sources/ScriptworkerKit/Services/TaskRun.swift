// SPDX-License-Identifier: MPL-2.0

import Glibc
import HTTPClient
import JSON
import Processes
import Schedules
import TaskclusterClient
import WorkerKit

/// One claimed task from its files to its report.
///
/// No failure in here leaves it: every one becomes a code, a line in a log, or both.
struct TaskRun: Sendable {
    let configuration: ScriptworkerConfiguration
    let keeper: ClaimKeeper
    let credentials: CredentialsFile
    let transport: any HTTPTransport
    let files: FileWork
    let stop: StopControl
    let log: WorkerLog
    let heartbeat: Heartbeat
    let workerClient: TaskclusterClient
    /// The log of verification, once there is one.
    let evidence = Latch<AuditLog>()
    /// Whether the task's usual log shall lead to the one of verification.
    let hasRefusedChain = Latch<Bool>()

    var claim: Claim { keeper.claim }
    static let logName = "public/logs/live_backing.log"

    func run() async {
        log.info("Going to run taskId \(claim.taskID) runId \(claim.runID)!")
        var code = ResolutionCode.success
        do {
            code = try await work()
        } catch {
            log.error("SCRIPTWORKER_UNEXPECTED_EXCEPTION \(error)")
            code = .internalError
        }
        if stop.stopping.value != nil { log.info("the worker is stopping") }
        guard keeper.lost.value == nil else { return await uploadAfterLoss() }
        code.raise(to: await upload())
        guard keeper.lost.value == nil else { return log.warning("not reporting: the claim is lost") }
        await report(code)
    }

    // MARK: - Work

    func work() async throws -> ResolutionCode {
        try TaskDirectories.make(configuration.taskLogDirectory)
        let limit = configuration.file.whole("task_log_max_bytes")
        var mirror: OutputLog.Mirror?
        if configuration.file.flag("task_log_mirror") {
            let lines = LineMirror(log)
            mirror = { lines.append($0) }
        }
        let output = try OutputLog(path: logPath, byteLimit: limit, mirror: mirror)
        @Sendable func note(_ text: String) {
            output.note(text)
            log.info(text)
        }
        let payload: TaskPayload
        do throws(TaskPayload.Problem) {
            payload = try TaskPayload(task: claim.task)
        } catch {
            note("malformed-payload: \(error)")
            return .malformedPayload
        }
        do {
            try writeTaskFiles()
            if let policy = configuration.policy {
                guard let code = try await verify(policy, note) else { return interrupted(note) }
                if code != .success { return code }
            } else {
                try await fetchInputs(payload, note)
            }
        } catch let problem as UpstreamInputs.Problem {
            note("cannot get the inputs: \(problem)")
            return problem.code
        } catch is CancellationError {
            return interrupted(note)
        }
        guard keeper.lost.value == nil, stop.stopping.value == nil else { return interrupted(note) }
        return try await runScript(payload, output, note)
    }

    private func interrupted(_ note: (String) -> Void) -> ResolutionCode {
        note(keeper.lost.value ?? "the worker is stopping; the script has not been started")
        return .workerShutdown
    }

    private func writeTaskFiles() throws {
        let directory = configuration.workDirectory
        try FileText.write(claim.task.bytes(.prettySorted), to: "\(directory)/task.json")
        let info: JSONValue = ["runId": .init(claim.runID), "taskId": .string(claim.taskID)]
        try FileText.write(info.bytes(.prettySorted), to: "\(directory)/current_task_info.json")
    }

    /// Verifies where the task comes from, which brings its inputs; nil when interrupted.
    private func verify(
        _ policy: ChainPolicy,
        _ note: @escaping @Sendable (String) -> Void
    ) async throws -> ResolutionCode? {
        heartbeat.update(["state": "verifying"])
        let audit = try AuditLog(path: auditPath)
        evidence.set(audit)
        let chainLog = ChainLog { level, text in
            audit.write(level, text)
            level == .critical ? log.critical(text) : log.debug(text)
        }
        let verifier = configuration.file.verifier(
            policy,
            client: workerClient,
            files: files,
            directory: configuration.workDirectory,
            log: chainLog
        )
        let type = configuration.file.text("cot_job_type")
        do {
            _ = try await cancelled(by: stop.stopping) {
                try await cancelled(by: keeper.lost) { [claim] in
                    try await verifier.verify(claim.taskID, claim.task, type: type)
                }
            }
            return .success
        } catch let problem as ChainProblem {
            note("chain of trust: \(problem)")
            // Viewers look for the log under its usual name; a link leads them to the reasons.
            unlink(logPath)
            hasRefusedChain.set(true)
            return problem.code
        } catch is CancellationError {
            return nil
        } catch {
            chainLog.critical("\(error)")
            throw error
        }
    }

    private func fetchInputs(_ payload: TaskPayload, _ note: @escaping @Sendable (String) -> Void) async throws {
        guard configuration.file.text("download_upstream_artifacts") == "always", !payload.upstream.isEmpty else {
            return
        }
        heartbeat.update(["state": "preparing"])
        let inputs = UpstreamInputs(
            downloader: configuration.file.downloader(workerClient, files, rules: nil) { log.warning($0) },
            directory: configuration.workDirectory,
            concurrency: configuration.file.whole("max_concurrent_downloads"),
            log: note
        )
        try await cancelled(by: stop.stopping) {
            try await cancelled(by: keeper.lost) { try await inputs.fetch(payload.upstream) }
        }
    }
}
