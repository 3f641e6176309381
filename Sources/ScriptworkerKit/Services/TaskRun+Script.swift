// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc
import JSON
import Processes
import WorkerKit

extension TaskRun {
    func runScript(
        _ payload: TaskPayload,
        _ output: OutputLog,
        _ note: @escaping @Sendable (String) -> Void
    ) async throws -> ResolutionCode {
        heartbeat.update(["state": "running"])
        let descriptor = try credentials.readOnly()
        let limit = min(configuration.file.seconds("task_max_timeout"), payload.maxRunTime ?? .seconds(1 << 31))
        var request = ProcessRequest(
            configuration.file.texts("task_script"),
            environment: environment(),
            output: output
        )
        request.descriptors = [descriptor.descriptor]
        request.timeLimit = limit
        request.sandbox = configuration.sandbox
        if let sandbox = configuration.sandbox, sandbox.userID > 0 { giveDirectories(to: sandbox) }
        request.stopGrace = configuration.file.seconds("task_kill_grace")
        request.drainTimeout = configuration.file.seconds("pipe_drain_timeout")
        request.orphans = .marked(Self.markers(claim.taskID, claim.runID))
        if configuration.ownsProcess { request.orphans = .all }

        let outcome: ProcessOutcome
        do throws(ProcessesError) {
            let process = try RunningProcess.start(request)
            outcome = await watch(process)
        } catch {
            note("internal-error: \(error)")
            return .internalError
        }
        return try await conclude(outcome, limit, output, note)
    }

    /// Lets a script of another user write where it must; the task's logs stay ours.
    private func giveDirectories(to sandbox: Sandbox) {
        let artifacts = configuration.artifactDirectory
        for path in [configuration.workDirectory, artifacts, "\(artifacts)/public"] {
            chown(path, sandbox.userID, sandbox.groupID)
        }
    }

    func watch(_ process: RunningProcess) async -> ProcessOutcome {
        await stop.stopping.observing { _ in
            process.stop()
        } during: {
            await stop.abandoning.observing { _ in
                process.kill()
            } during: {
                await keeper.lost.observing { _ in
                    process.stop()
                } during: {
                    await process.outcome()
                }
            }
        }
    }

    func conclude(
        _ outcome: ProcessOutcome,
        _ limit: Duration,
        _ output: OutputLog,
        _ note: @escaping @Sendable (String) -> Void
    ) async throws -> ResolutionCode {
        if outcome.hadLeftovers { note("the script left processes behind, which have been ended") }
        if outcome.hasSurvivors {
            log.critical("some processes of the script cannot be ended")
            heartbeat.update(["leftoverProcesses": true])
        }
        if let reason = keeper.lost.value { note("the claim is lost: \(reason)") }
        var code = ResolutionCode.success
        switch outcome.ending {
        case .natural: break
        case .timeLimit:
            note("Automation Error: Exceeded max run time of \(limit.components.seconds) seconds")
            code = ResolutionCode(Int32(configuration.file.whole("task_max_timeout_status")))
        case .stopped:
            if keeper.lost.value == nil { note("the worker is stopping; the script has been stopped") }
            code = .workerShutdown
        }
        if let number = output.failure {
            note("internal-error: the log could not be written whole: \(String(cString: strerror(number)))")
            code.raise(to: .internalError)
        }
        code.raise(to: restoreArtifacts(output, note))
        code.raise(to: try await removeReserved(note))
        switch outcome.status {
        case .exited(let number):
            note("exit code: \(number)")
            if outcome.ending == .natural { code.raise(to: ResolutionCode(number)) }
        case .signalled(let number):
            note("Automation Error: python exited with signal -\(number)")
            if outcome.ending == .natural { code.raise(to: .failure) }
        }
        // A stopped worker gives the task back whatever the script left half done.
        if outcome.ending == .stopped { return .workerShutdown }
        if outcome.ending == .natural, keeper.lost.value == nil { code.raise(to: await writeChainOfTrust()) }
        return code
    }

    func environment() -> [String: String] {
        var environment = configuration.environment
        for name in configuration.file.texts("strip_env") { environment[name] = nil }
        environment["TASK_ID"] = claim.taskID
        environment["RUN_ID"] = "\(claim.runID)"
        environment["TASKCLUSTER_ROOT_URL"] = configuration.rootURL
        environment["TASKCLUSTER_CREDENTIALS_FD"] = "\(ProcessRequest.childDescriptor(0))"
        if configuration.file.flag("export_cot_product") {
            environment["SCRIPTWORKER_COT_PRODUCT"] = configuration.file.values["cot_product"]?.string
        }
        return environment
    }

    /// What tells processes of a run from others.
    static func markers(_ taskID: String, _ runID: Int) -> [String] { ["TASK_ID=\(taskID)", "RUN_ID=\(runID)"] }
}
