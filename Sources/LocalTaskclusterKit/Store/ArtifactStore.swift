// SPDX-License-Identifier: MPL-2.0
import Postgres
public import Schedules

import JSON
import Taskcluster

extension QueueStore {
    /// Stores an artifact, or merges it into the one of the same name; answers with the task as well.
    public func createArtifact(_ artifact: Artifact, now: Timestamp) async throws -> (Artifact, TaskStatus) {
        let existing: SQL = """
            select \(unsafe: Self.artifactColumns) from tcl.artifacts a
            where a.task_id = \(artifact.taskID) and a.run_id = \(artifact.runID) and a.name = \(artifact.name)
            """
        // The status row is locked, so two creations of one artifact come one after the other.
        return try await transact(reading: [Self.lock(artifact.taskID), existing]) { rows in
            guard let row = rows[0].first else {
                throw QueueProblem(.input, "There is no task \(artifact.taskID).")
            }
            let facts = try TaskFacts(row: row)
            try ArtifactRules.check(artifact, of: facts.status, now: now)
            var stored = artifact
            if let old = rows[1].first {
                stored = try ArtifactRules.merge(artifact, into: Artifact(row: old))
            } else if artifact.content == .blob {
                stored.blobID = Slugid.make()
            } else if case .object = artifact.content {
                stored.content = .object(projectID: facts.status.projectID, uploadID: Slugid.make())
            }
            var decision = Decision(answer: (stored, facts.status))
            decision.statements.append(
                """
                insert into tcl.artifacts (task_id, run_id, name, storage_type, content_type, content_length, details,
                    expires, blob_id, present)
                values (\(stored.taskID), \(stored.runID), \(stored.name), \(stored.content.storageType),
                    \(stored.contentType), \(stored.contentLength), \(stored.content.details), \(stored.expires),
                    \(stored.blobID), \(stored.content.isPresentAtOnce))
                on conflict (task_id, run_id, name) do update set storage_type = excluded.storage_type,
                    content_type = excluded.content_type, content_length = excluded.content_length,
                    details = excluded.details, expires = excluded.expires
                """
            )
            if case .object(let projectID, let uploadID) = stored.content {
                let reservation = ObjectReservation(
                    name: stored.objectName,
                    projectID: projectID,
                    uploadID: uploadID,
                    expires: stored.expires
                )
                decision.statements.append(ObjectStore.reserve(reservation, now: now))
            } else if stored.content != .blob {
                decision.statements.append(
                    Self.announce(messages.artifactCreated(stored.json, run: stored.runID, facts))
                )
                decision.aftermath.messages = true
            }
            return decision
        }
    }

    /// Finds an artifact of a run, or of the last run if none is named.
    ///
    /// - Throws: `QueueProblem` if there is no such task, run or artifact, or if it has expired.
    public func artifact(taskID: String, run: Int?, name: String, now: Timestamp) async throws -> Artifact {
        let rows = try await pool.query(
            """
            select \(unsafe: Self.artifactColumns), r.run_id as chosen
            from (select json_array_length(s.runs) as count,
                    coalesce(\(run)::int, json_array_length(s.runs) - 1) as run_id
                from tcl.task_status s where s.task_id = \(taskID)) r
            left join tcl.artifacts a on a.task_id = \(taskID) and a.run_id = r.run_id and a.name = \(name)
                and a.present
            where r.run_id >= 0 and r.run_id < r.count
            """
        )
        guard let row = rows.first, try row.optionalString("name") != nil else {
            throw QueueProblem(.notFound, "Task \(taskID) has no artifact \(name) in this run.")
        }
        let artifact = try Artifact(row: row)
        guard artifact.expires > now else {
            throw QueueProblem(.expired, "Artifact \(name) of task \(taskID) expired at \(artifact.expires.iso8601).")
        }
        return artifact
    }

    /// The artifacts of a run, or of the last run, by name after the given one.
    public func artifacts(
        taskID: String,
        run: Int?,
        after name: String?,
        limit: Int,
        now: Timestamp
    ) async throws -> [Artifact] {
        let runs: SQL = """
            select json_array_length(runs) as count from tcl.task_status where task_id = \(taskID)
            """
        guard let count = try await pool.query(runs).first?.int("count") else { throw QueueProblem.noTask(taskID) }
        let chosen = run ?? count - 1
        guard chosen >= 0, chosen < count else {
            throw QueueProblem(.notFound, "Task \(taskID) has no run \(run.map(String.init) ?? "yet").")
        }
        return try await pool.query(
            """
            select \(unsafe: Self.artifactColumns) from tcl.artifacts a
            where a.task_id = \(taskID) and a.run_id = \(chosen) and a.name > \(name ?? "") and a.present
                and a.expires > \(now)
            order by a.name limit \(limit)
            """
        ).map { try Artifact(row: $0) }
    }

    /// Makes an artifact readable whose upload to the object service is complete; repeating that is announced again.
    public func finishArtifact(
        taskID: String,
        run: Int,
        name: String,
        uploadID: String,
        now: Timestamp
    ) async throws {
        let find: SQL = """
            select \(unsafe: Self.artifactColumns), coalesce(o.finished, false) as finished from tcl.artifacts a
            left join tcl.objects o on a.storage_type = 'object'
                and o.name = 't/' || a.task_id || '/' || a.run_id || '/' || a.name
            where a.task_id = \(taskID) and a.run_id = \(run) and a.name = \(name)
            """
        try await transact(reading: [Self.lock(taskID), find]) { rows in
            guard let row = rows[0].first, let found = rows[1].first else {
                throw QueueProblem(.notFound, "Run \(run) of task \(taskID) has no artifact \(name).")
            }
            let artifact = try Artifact(row: found)
            guard case .object(_, let expected) = artifact.content else {
                throw QueueProblem(.input, "Artifact \(name) is of storage type \(artifact.content.storageType).")
            }
            guard uploadID == expected else {
                throw QueueProblem(.input, "`uploadId` is not the one that artifact \(name) was created with.")
            }
            guard try found.bool("finished") else {
                throw QueueProblem(.input, "The upload of artifact \(name) has not been finished.")
            }
            return Decision(
                answer: (),
                statements: [
                    """
                    update tcl.artifacts set present = true
                    where task_id = \(taskID) and run_id = \(run) and name = \(name)
                    """,
                    Self.announce(messages.artifactCreated(artifact.json, run: run, try TaskFacts(row: row))),
                ],
                aftermath: Aftermath(messages: true)
            )
        }
    }

    /// Some expired artifacts, with the names of their bytes.
    func expiredArtifacts(limit: Int, now: Timestamp) async throws -> [Artifact] {
        try await pool.query(
            """
            select \(unsafe: Self.artifactColumns) from tcl.artifacts a where a.expires < \(now)
            order by a.expires limit \(limit)
            """
        ).map { try Artifact(row: $0) }
    }

    /// Forgets artifacts if they are still expired.
    func forget(_ artifacts: [Artifact], now: Timestamp) async throws {
        try await pool.execute(
            """
            delete from tcl.artifacts a using unnest(\(artifacts.map(\.taskID))::text[], \(artifacts.map(\.runID))::bigint[],
                \(artifacts.map(\.name))::text[]) as x (task_id, run_id, name)
            where a.task_id = x.task_id and a.run_id = x.run_id and a.name = x.name and a.expires < \(now)
            """
        )
    }

    private static let artifactColumns = """
        a.task_id, a.run_id, a.name, a.storage_type, a.content_type, a.content_length, a.details, a.expires, a.blob_id
        """
}

extension ArtifactContent {
    /// Whether the artifact can be read before anything is uploaded.
    fileprivate var isPresentAtOnce: Bool {
        if case .object = self { false } else { true }
    }
}

extension Artifact {
    fileprivate init(row: PostgresRow) throws {
        let type = try row.string("storage_type")
        guard let content = ArtifactContent(storageType: type, details: try row.json("details")) else {
            throw QueueProblem(.notFound, "An artifact has the unknown storage type \(type).")
        }
        self.init(
            taskID: try row.string("task_id"),
            runID: try row.int("run_id"),
            name: try row.string("name"),
            content: content,
            contentType: try row.string("content_type"),
            contentLength: try row.optionalInt("content_length"),
            expires: try row.timestamp("expires"),
            blobID: try row.optionalString("blob_id")
        )
    }
}
