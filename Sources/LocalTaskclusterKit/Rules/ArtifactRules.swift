// SPDX-License-Identifier: MPL-2.0
public import JSON
public import Schedules

/// What may be said about an artifact, and when.
public enum ArtifactRules {
    /// How long after an exception a worker may still add artifacts: it learns of a cancellation only by a refusal.
    static let grace: Duration = .seconds(25 * 60)

    /// Reads a request that satisfies the schema.
    public static func artifact(
        taskID: String,
        runID: Int,
        name: String,
        request: JSONValue,
        now: Timestamp
    ) throws(QueueProblem) -> Artifact {
        guard let type = request["storageType"]?.string else {
            throw QueueProblem(.input, "`storageType` is missing.")
        }
        guard let expires = request["expires"]?.string.flatMap({ Timestamp($0) }) else {
            throw QueueProblem(.input, "`expires` is not a date and time.")
        }
        guard expires > now - .seconds(15 * 60) else {
            throw QueueProblem(.input, "`expires` of artifact \(name) lies in the past.")
        }
        guard let content = ArtifactContent(storageType: type, details: request) else {
            throw QueueProblem(.input, "Artifacts of storage type \(type) are not supported here.")
        }
        return Artifact(
            taskID: taskID,
            runID: runID,
            name: name,
            content: content,
            contentType: request["contentType"]?.string ?? "application/binary",
            contentLength: request["contentLength"]?.int,
            expires: expires
        )
    }

    /// Refuses an artifact of a run that was never claimed, is over, or whose task expires earlier.
    public static func check(_ artifact: Artifact, of status: TaskStatus, now: Timestamp) throws(QueueProblem) {
        guard status.runs.indices.contains(artifact.runID) else {
            throw QueueProblem(.input, "Task \(status.taskID) has no run \(artifact.runID).")
        }
        let run = status.runs[artifact.runID]
        guard run.worker != nil else {
            throw QueueProblem(.input, "Run \(run.runID) of task \(status.taskID) was never claimed.")
        }
        guard artifact.expires <= status.expires else {
            throw QueueProblem(
                .input,
                "Artifact \(artifact.name) would outlive its task, which expires at \(status.expires.iso8601)."
            )
        }
        switch run.state {
        case .running: return
        case .exception where (run.resolved ?? run.scheduled) > now - grace: return
        default:
            throw QueueProblem(
                .conflict,
                "Run \(run.runID) of task \(status.taskID) is \(run.state.rawValue) and takes no artifacts."
            )
        }
    }

    /// What is stored when an artifact is created again.
    ///
    /// Content never changes, except that a reference may be redirected or become a link; the expiry only grows.
    public static func merge(_ new: Artifact, into old: Artifact) throws(QueueProblem) -> Artifact {
        func conflict(_ what: String) -> QueueProblem {
            QueueProblem(.conflict, "Artifact \(new.name) exists already with \(what).")
        }
        guard new.expires >= old.expires else { throw conflict("a later `expires`") }
        var merged = new
        merged.blobID = old.blobID
        switch (old.content, new.content) {
        case (.reference, .link): return merged
        case (.reference, .reference): break
        // The upload that was begun goes on.
        case (.object, .object): merged.content = old.content
        case (let first, let second) where first == second: break
        default: throw conflict("other content of storage type \(old.content.storageType)")
        }
        guard new.contentType == old.contentType else { throw conflict("content type \(old.contentType)") }
        return merged
    }
}
