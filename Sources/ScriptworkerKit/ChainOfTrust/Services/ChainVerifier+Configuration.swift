// SPDX-License-Identifier: MPL-2.0

import Expressions
import HTTPClient
import TaskclusterClient
import WorkerKit

extension ConfigurationFile {
    /// What fetches artifacts as this configuration wants it.
    func downloader(
        _ client: TaskclusterClient,
        _ files: FileWork,
        rules: [URLRule]?,
        onProblem: @escaping @Sendable (String) -> Void
    ) -> ArtifactDownloader {
        ArtifactDownloader(
            client: client,
            transport: client.transport,
            files: files,
            timeout: seconds("artifact_download_timeout"),
            stallTimeout: seconds("download_stall_timeout"),
            schedule: .download.beginning(with: seconds("transfer_retry_delay")),
            isAllowed: { url, taskID in
                do throws(RegularExpression.Undecided) {
                    return try rules?.allow(url, taskID) ?? true
                } catch {
                    onProblem("valid_artifact_rules: \(error)")
                    return false
                }
            },
            onProblem: onProblem
        )
    }

    /// What verifies chains as this configuration wants it, filling `cot/` below a directory.
    func verifier(
        _ policy: ChainPolicy,
        client: TaskclusterClient,
        files: FileWork,
        directory: String,
        log: ChainLog
    ) -> ChainVerifier {
        ChainVerifier(
            policy: policy,
            client: client,
            downloader: downloader(client, files, rules: policy.artifactRules) { log.warning($0) },
            host: SourceHost(
                policy: policy,
                client: client,
                transport: client.transport,
                directory: directory,
                schedule: .download.beginning(with: seconds("transfer_retry_delay")),
                log: log
            ),
            directory: directory,
            concurrency: whole("max_concurrent_downloads"),
            schedule: .upload.beginning(with: seconds("transfer_retry_delay")),
            log: log
        )
    }
}

extension [URLRule] {
    /// Whether an artifact of a task may be fetched from a URL.
    func allow(_ url: String, _ taskID: String) throws(RegularExpression.Undecided) -> Bool {
        guard let url = SourceURL(url) else { return false }
        for rule in self {
            guard let groups = try rule.groups(of: url) else { continue }
            let path = groups["filepath"] ?? ""
            let named = groups["taskId"]
            return TaskPayload.isSafe(path) && (named == nil || named == taskID)
        }
        return false
    }
}
