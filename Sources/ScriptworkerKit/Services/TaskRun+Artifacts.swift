// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON
import Processes
import WorkerKit

extension TaskRun {
    var auditPath: String { "\(configuration.taskLogDirectory)/chain_of_trust.log" }
    var logPath: String { "\(configuration.taskLogDirectory)/live_backing.log" }

    /// Puts the directory and the log back if the script took them away.
    func restoreArtifacts(_ output: OutputLog, _ note: (String) -> Void) -> ResolutionCode {
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
    func removeReserved(_ note: @escaping @Sendable (String) -> Void) async throws -> ResolutionCode {
        var reserved = [ChainOfTrustArtifact.name, ChainOfTrustArtifact.signatureName]
        if let audit = evidence.value {
            if !audit.restore() { note("put chain_of_trust.log back, which the script had changed") }
        } else {
            reserved.append("public/logs/chain_of_trust.log")
        }
        for name in reserved {
            guard unlink("\(configuration.artifactDirectory)/\(name)") == 0 else { continue }
            note("removed \(name): scripts must not create it")
        }
        let problems = try await files.run {
            let walk = try walk()
            return walk.problems + selected(walk).problems
        }
        for problem in problems { note(problem) }
        return problems.isEmpty ? .success : .internalError
    }

    func walk() throws -> ArtifactWalk {
        try ArtifactWalk(
            configuration.artifactDirectory,
            linksMayLeadInto: [configuration.workDirectory],
            leavingOut: configuration.file.flag("require_dir_marker") ? [TaskDirectories.marker] : []
        )
    }

    /// What is uploaded of what there is, and why the rest is not.
    func selected(_ walk: ArtifactWalk) -> (files: [ArtifactWalk.Found], problems: [String]) {
        var problems: [String] = []
        var found = walk.files
        let largest = configuration.file.whole("artifact_max_bytes")
        if largest > 0 {
            for file in found where file.size > largest {
                problems.append("not uploading \(file.name): it has \(file.size) bytes, more than \(largest)")
            }
            found.removeAll { $0.size > largest }
        }
        let limit = configuration.file.whole("artifact_max_count")
        if limit > 0, found.count > limit {
            problems.append("not uploading \(found.count - limit) files: there are more than \(limit)")
            // The logs matter more than one file among thousands.
            let logs = found.filter { $0.name.hasPrefix("public/logs/") }
            found = Array((logs + found.filter { !$0.name.hasPrefix("public/logs/") }).prefix(limit))
        }
        return (found, problems)
    }

    func writeChainOfTrust() async -> ResolutionCode {
        let algorithm = configuration.file.text("chain_of_trust_hash_algorithm")
        do {
            let digests = try await files.run {
                var digests: [String: String] = [:]
                for file in selected(try walk()).files {
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
            if let problem = try configuration.statementSchema?.validate(JSONValue(parsing: text)).first {
                throw ChainOfTrustArtifact.Problem(
                    description:
                        "the statement is not what cot_schema_path demands: \(problem.described(root: "statement"))"
                )
            }
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
            // Half a statement is none.
            for name in [ChainOfTrustArtifact.name, ChainOfTrustArtifact.signatureName] {
                unlink("\(configuration.artifactDirectory)/\(name)")
            }
            log.error("cannot write the chain-of-trust artifact: \(error)")
            return .internalError
        }
    }
}
