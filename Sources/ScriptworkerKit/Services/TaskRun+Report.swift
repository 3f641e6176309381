// SPDX-License-Identifier: MPL-2.0

import JSON
import WorkerKit

extension TaskRun {
    private func uploader(attempts: Int? = nil) -> ArtifactUploader {
        var options = ArtifactUploader.Options(temporaryDirectory: configuration.workDirectory)
        options.concurrency = configuration.file.whole("max_concurrent_uploads")
        options.compressionLimit = configuration.file.whole("gzip_max_bytes")
        options.timeout = configuration.file.seconds("artifact_upload_timeout")
        options.schedule = .upload.beginning(with: configuration.file.seconds("transfer_retry_delay"))
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

    func upload() async -> ResolutionCode {
        heartbeat.update(["state": "finishing"])
        do {
            var (found, problems) = try await files.run { selected(try walk()) }
            if stop.abandoning.value != nil { found = found.filter { $0.name.hasPrefix("public/logs/") } }
            for problem in problems { log.error(problem) }
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
            await linkLog()
            return max(problems.isEmpty ? .success : .internalError, failures.values.map(\.code).max() ?? .success)
        } catch {
            log.error("cannot upload: \(error)")
            return .internalError
        }
    }

    /// Leads those who look for the task's usual log to the reasons for refusing it.
    private func linkLog() async {
        guard hasRefusedChain.value != nil, keeper.lost.value == nil else { return }
        let target = "public/logs/chain_of_trust.log"
        let failure = await uploader().link(Self.logName, to: target, contentType: ContentType("text/plain"))
        if let failure { log.error("could not link \(Self.logName): \(failure.text)") }
    }

    /// The log may still be welcome: the queue takes artifacts for a while after an exception.
    func uploadAfterLoss() async {
        log.warning("the claim is lost, so nothing is reported: \(keeper.lost.value ?? "")")
        let found: [ArtifactWalk.Found]
        do { found = try await files.run { try walk().files } } catch {
            log.error("the logs were not uploaded: \(error)")
            return
        }
        let logs = found.filter { $0.name.hasPrefix("public/logs/") }
        let failures = await uploader(attempts: 1).upload(logs) { _ in true }
        for (name, failure) in failures { log.info("\(name) is not wanted any more: \(failure.text)") }
    }

    func report(_ code: ResolutionCode) async {
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
