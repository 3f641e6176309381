// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import TaskclusterClient
import WorkerKit

extension ScriptworkerConfiguration {
    /// What fetches artifacts as this configuration wants it.
    func downloader(
        _ client: TaskclusterClient,
        _ transport: any HTTPTransport,
        _ files: FileWork,
        onProblem: @escaping @Sendable (String) -> Void
    ) -> ArtifactDownloader {
        let rules = policy?.artifactRules
        return ArtifactDownloader(
            client: client,
            transport: transport,
            files: files,
            timeout: file.seconds("artifact_download_timeout"),
            stallTimeout: file.seconds("download_stall_timeout"),
            isAllowed: { url, taskID in rules?.allow(url, taskID) ?? true },
            onProblem: onProblem
        )
    }

    /// What verifies chains as this configuration wants it.
    func verifier(
        _ policy: ChainPolicy,
        client: TaskclusterClient,
        transport: any HTTPTransport,
        files: FileWork,
        log: ChainLog,
        directory: String? = nil,
        schedule: TransferSchedule = .upload
    ) -> ChainVerifier {
        let directory = directory ?? workDirectory
        return ChainVerifier(
            policy: policy,
            client: client,
            downloader: downloader(client, transport, files) { log.warning($0) },
            host: SourceHost(
                policy: policy,
                client: client,
                transport: transport,
                directory: directory,
                schedule: .download,
                log: log
            ),
            directory: directory,
            concurrency: file.whole("max_concurrent_downloads"),
            schedule: schedule,
            log: log
        )
    }
}

extension [URLRule] {
    /// Whether an artifact of a task may be fetched from a URL.
    func allow(_ url: String, _ taskID: String) -> Bool {
        guard let url = SourceURL(url) else { return false }
        for rule in self {
            guard let groups = rule.groups(of: url) else { continue }
            let path = groups["filepath"] ?? ""
            let named = groups["taskId"]
            return TaskPayload.isSafe(path) && (named == nil || named == taskID)
        }
        return false
    }
}
