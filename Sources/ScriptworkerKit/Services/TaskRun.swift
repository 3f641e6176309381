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

    private var claim: Claim { keeper.claim }
    private static let logName = "public/logs/live_backing.log"

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

    private func work() async throws -> ResolutionCode {
        try TaskDirectories.make(configuration.taskLogDirectory)
        let limit = configuration.file.whole("task_log_max_bytes")
        var mirror: OutputLog.Mirror?
        if configuration.file.flag("task_log_mirror") { mirror = { [log] in log.mirror($0) } }
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
            try await fetchInputs(payload, note)
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

    private func fetchInputs(_ payload: TaskPayload, _ note: @escaping @Sendable (String) -> Void) async throws {
        // Verification, which brings the inputs with it, will have its place here.
        guard configuration.file.text("download_upstream_artifacts") == "always", !payload.upstream.isEmpty else {
            return
        }
        heartbeat.update(["state": "preparing"])
        let downloader = ArtifactDownloader(
            client: workerClient,
            transport: transport,
            files: files,
            timeout: configuration.file.seconds("artifact_download_timeout"),
            stallTimeout: configuration.file.seconds("download_stall_timeout"),
            onProblem: { log.warning($0) }
        )
        let inputs = UpstreamInputs(
            downloader: downloader,
            directory: configuration.workDirectory,
            concurrency: configuration.file.whole("max_concurrent_downloads"),
            log: note
        )
        try await cancelled(by: stop.stopping) {
            try await cancelled(by: keeper.lost) { try await inputs.fetch(payload.upstream) }
        }
    }

    private func runScript(
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

    private func watch(_ process: RunningProcess) async -> ProcessOutcome {
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

    private func conclude(
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

    private func environment() -> [String: String] {
        var environment = configuration.environment
        for name in configuration.file.texts("strip_env") { environment[name] = nil }
        environment["TASK_ID"] = claim.taskID
        environment["RUN_ID"] = "\(claim.runID)"
        environment["TASKCLUSTER_ROOT_URL"] = configuration.rootURL
        environment["TASKCLUSTER_CREDENTIALS_FD"] = "\(ProcessRequest.childDescriptor(0))"
        return environment
    }

    /// What tells processes of a run from others.
    static func markers(_ taskID: String, _ runID: Int) -> [String] { ["TASK_ID=\(taskID)", "RUN_ID=\(runID)"] }

    // MARK: - Artifacts

    private var logPath: String { "\(configuration.taskLogDirectory)/live_backing.log" }

    /// Puts the directory and the log back if the script took them away.
    private func restoreArtifacts(_ output: OutputLog, _ note: (String) -> Void) -> ResolutionCode {
        var code = ResolutionCode.success
        var info = stat()
        if lstat(configuration.artifactDirectory, &info) != 0 || info.st_mode & S_IFMT != S_IFDIR {
            note("internal-error: the script removed or replaced the artifact directory")
            code = .internalError
        }
        var opened = stat()
        if stat(logPath, &info) == 0, fstat(output.descriptor, &opened) == 0, info.st_ino == opened.st_ino {
            return code
        }
        do {
            if code == .internalError { unlink(configuration.artifactDirectory) }
            try TaskDirectories.make(configuration.taskLogDirectory)
            unlink(logPath)
            // The file still exists without a name; a link gives it a new one, unless the filesystem refuses.
            let source = "/proc/self/fd/\(output.descriptor)"
            if linkat(AT_FDCWD, source, AT_FDCWD, logPath, AT_SYMLINK_FOLLOW) != 0 {
                try FileText.write(FileText.bytes(source), to: logPath)
            }
        } catch {
            log.error("cannot restore the task's log: \(error)")
        }
        return max(code, .internalError)
    }

    /// Removes files with names that are ours, and tells what cannot be uploaded while the log is still open.
    private func removeReserved(_ note: @escaping @Sendable (String) -> Void) async throws -> ResolutionCode {
        for name in [ChainOfTrustArtifact.name, ChainOfTrustArtifact.signatureName, "public/logs/chain_of_trust.log"] {
            guard unlink("\(configuration.artifactDirectory)/\(name)") == 0 else { continue }
            note("removed \(name): scripts must not create it")
        }
        let problems = try await files.run { try walk().problems }
        for problem in problems { note(problem) }
        return problems.isEmpty ? .success : .internalError
    }

    private func walk() throws -> ArtifactWalk {
        try ArtifactWalk(configuration.artifactDirectory, linksMayLeadInto: [configuration.workDirectory])
    }

    private func writeChainOfTrust() async -> ResolutionCode {
        let algorithm = configuration.file.text("chain_of_trust_hash_algorithm")
        do {
            let digests = try await files.run {
                var digests: [String: String] = [:]
                for file in try walk().files {
                    let opened = try file.opened()
                    digests[file.name] =
                        try algorithm == "sha512" ? FileDigest.sha512(opened) : FileDigest.sha256(opened)
                }
                return digests
            }
            let workerType = configuration.file.text("worker_type")
            let text = try ChainOfTrustArtifact.text(
                claim,
                workerType: workerType,
                algorithm: algorithm,
                digests: digests
            )
            try TaskDirectories.make("\(configuration.artifactDirectory)/public")
            try FileText.write(text, to: "\(configuration.artifactDirectory)/\(ChainOfTrustArtifact.name)")
            guard let key = configuration.signingKey else { return .success }
            let path = "\(configuration.artifactDirectory)/\(ChainOfTrustArtifact.signatureName)"
            try FileText.write(key.signature(of: text), to: path)
            return .success
        } catch let problem as ChainOfTrustArtifact.Problem {
            log.error("\(problem)")
            return .malformedPayload
        } catch {
            log.error("cannot write the chain-of-trust artifact: \(error)")
            return .internalError
        }
    }

    // MARK: - Upload and report

    private func uploader(attempts: Int? = nil) -> ArtifactUploader {
        var options = ArtifactUploader.Options(temporaryDirectory: configuration.workDirectory)
        options.concurrency = configuration.file.whole("max_concurrent_uploads")
        options.timeout = configuration.file.seconds("artifact_upload_timeout")
        options.ignoresLoss = attempts != nil
        if let attempts { options.schedule.attempts = attempts }
        for (suffix, type) in configuration.file.values["content_types"]?.object ?? [:] {
            options.contentTypes[suffix] = type.string
        }
        return ArtifactUploader(
            keeper,
            transport: transport,
            files: files,
            options: options,
            onProblem: { log.warning($0) }
        )
    }

    private func upload() async -> ResolutionCode {
        heartbeat.update(["state": "finishing"])
        do {
            var found = try await files.run { try walk().files }
            if stop.abandoning.value != nil { found = found.filter { $0.name.hasPrefix("public/logs/") } }
            let limit = configuration.file.whole("artifact_max_count")
            if limit > 0, found.count > limit {
                log.error("not uploading more than \(limit) artifacts")
                found = Array(found.prefix(limit))
            }
            let uploads = found
            let failures = await withTaskGroup(of: [String: ArtifactUploader.Failure]?.self) { group in
                group.addTask {
                    await uploader().upload(uploads) {
                        $0.hasPrefix("public/logs/") || $0.hasPrefix(ChainOfTrustArtifact.name)
                    }
                }
                group.addTask {
                    _ = await keeper.lost.wait()
                    return nil
                }
                group.addTask {
                    guard await stop.stopping.wait() != nil else { return nil }
                    try? await Task.sleep(for: configuration.file.seconds("shutdown_upload_deadline"))
                    return nil
                }
                defer { group.cancelAll() }
                while let result = await group.next() {
                    if let result { return result }
                    group.cancelAll()
                }
                return [:]
            }
            for (name, failure) in failures { log.error("could not upload \(name): \(failure.text)") }
            return failures.values.map(\.code).max() ?? .success
        } catch {
            log.error("cannot upload: \(error)")
            return .internalError
        }
    }

    /// The log may still be welcome: the queue takes artifacts for a while after an exception.
    private func uploadAfterLoss() async {
        log.warning("the claim is lost, so nothing is reported: \(keeper.lost.value ?? "")")
        guard let found = try? await files.run({ try walk().files }) else { return }
        let logs = found.filter { $0.name == Self.logName }
        let failures = await uploader(attempts: 1).upload(logs) { _ in true }
        for (name, failure) in failures { log.info("\(name) is not wanted any more: \(failure.text)") }
    }

    private func report(_ code: ResolutionCode) async {
        let resolution = code.resolution(reversed: configuration.reversedStatuses)
        log.info("Reporting task \(resolution)...")
        heartbeat.update(["state": "reporting"])
        let reporter = TaskReporter(keeper) { log.warning($0) }
        switch await reporter.report(resolution) {
        case .reported(.completed): heartbeat.count("completed")
        case .reported(.failed): heartbeat.count("failed")
        case .reported(.exception): heartbeat.count("exception")
        case .alreadyResolved: log.info("not reporting: the run is already resolved")
        case .refused(let text): log.error("the queue refuses the report: \(text)")
        case .unreachable(let text): log.error("could not report while the claim lasted: \(text)")
        }
    }
}
