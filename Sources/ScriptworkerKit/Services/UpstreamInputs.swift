// SPDX-License-Identifier: MPL-2.0

import JSON
import WorkerKit

/// Fetches the files of other tasks that a script needs, into `work_dir/cot/<taskId>/<path>`.
struct UpstreamInputs: Sendable {
    /// Why the script cannot run, and the code for it.
    struct Problem: Error, CustomStringConvertible {
        let code: ResolutionCode
        let description: String
    }

    let downloader: ArtifactDownloader
    let directory: String
    let concurrency: Int
    let log: @Sendable (String) -> Void

    /// Fetches everything; a file whose digest is known appears only when it matches.
    func fetch(_ upstream: [TaskPayload.Upstream]) async throws {
        for taskID in Set(upstream.map(\.taskID)).sorted() {
            let entries = upstream.filter { $0.taskID == taskID }
            let listed = try await listedDigests(of: taskID)
            var wanted: [String: (isOptional: Bool, digest: String?)] = [:]
            for entry in entries {
                for path in try await expanded(entry) {
                    let isOptional = entry.isOptional || wanted[path]?.isOptional ?? false
                    wanted[path] = (isOptional, entry.digests[path] ?? wanted[path]?.digest ?? listed[path])
                }
            }
            try await fetch(taskID, wanted)
        }
    }

    private func fetch(_ taskID: String, _ wanted: [String: (isOptional: Bool, digest: String?)]) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for (index, item) in wanted.sorted(by: { $0.key < $1.key }).enumerated() {
                if index >= concurrency { try await group.next() }
                group.addTask { try await fetch(item.key, of: taskID, item.value.digest, item.value.isOptional) }
            }
            try await group.waitForAll()
        }
    }

    private func fetch(_ name: String, of taskID: String, _ digest: String?, _ isOptional: Bool) async throws {
        let path = "\(directory)/cot/\(taskID)/\(name)"
        do {
            try TaskDirectories.make(String(path[..<(path.lastIndex(of: "/") ?? path.endIndex)]))
            let found = try await downloader.download(
                name,
                of: taskID,
                to: path,
                digests: digest.map { ["sha256": $0] } ?? [:]
            )
            let checked = digest == nil ? "not verified" : "verified"
            log("downloaded \(name) of \(taskID), sha256 \(found), \(checked)")
        } catch let failure as ArtifactDownloader.Failure {
            // Whatever is optional may be absent, but never another content than announced.
            if isOptional, case .absent = failure {
                return log("optional \(name) of \(taskID) is not there: \(failure)")
            }
            switch failure {
            case .absent, .mismatch, .forbidden: throw Problem(code: .malformedPayload, description: "\(failure)")
            case .unreachable: throw Problem(code: .resourceUnavailable, description: "\(failure)")
            case .storage: throw Problem(code: .internalError, description: "\(failure)")
            case .interrupted: throw CancellationError()
            }
        }
    }

    private func expanded(_ entry: TaskPayload.Upstream) async throws -> [String] {
        guard entry.paths.contains(where: { $0.contains("*") }) else { return entry.paths }
        let names: [String]
        do {
            names = try await downloader.names(of: entry.taskID)
        } catch {
            log("cannot list the artifacts of \(entry.taskID): \(error)")
            names = []
        }
        return entry.paths.flatMap { path in
            guard path.contains("*") else { return [path] }
            return names.filter { FileNamePattern(path).matches($0) && TaskPayload.isSafe($0) }
        }
    }

    /// What the other task's own statement says about its artifacts; nothing when it made none.
    private func listedDigests(of taskID: String) async throws -> [String: String] {
        let path = "\(directory)/cot/\(taskID)/\(ChainOfTrustArtifact.name)"
        do {
            try TaskDirectories.make("\(directory)/cot/\(taskID)/public")
            try await downloader.download(ChainOfTrustArtifact.name, of: taskID, to: path)
        } catch let failure as ArtifactDownloader.Failure {
            if case .absent = failure { return [:] }
            if case .interrupted = failure { throw CancellationError() }
            throw Problem(code: .resourceUnavailable, description: "\(failure)")
        }
        let statement: JSONValue
        do { statement = try JSONValue(parsing: FileText.bytes(path)) } catch {
            // Taking it for absent would let inputs pass unchecked.
            throw Problem(code: .resourceUnavailable, description: "the statement at \(path) is unreadable: \(error)")
        }
        var digests: [String: String] = [:]
        for (name, hashes) in statement["artifacts"]?.object ?? [:] { digests[name] = hashes["sha256"]?.string }
        return digests
    }
}
