// SPDX-License-Identifier: MPL-2.0
import Postgres
public import Schedules

import JSON
import Taskcluster

/// The bytes behind an artifact.
public struct Blob: Sendable, Hashable {
    /// The name of the blob in addresses.
    public let id: String
    /// The path below the blob directory.
    public let file: String
    /// The media type it was uploaded with.
    public let contentType: String
    /// The encoding it was uploaded with; the bytes are kept as they came.
    public let contentEncoding: String?
    /// How many bytes there are.
    public let length: Int
    /// The SHA-256 of the bytes in hexadecimal.
    public let sha256: String

    /// Describes stored bytes.
    public init(id: String, file: String, contentType: String, contentEncoding: String?, length: Int, sha256: String) {
        self.id = id
        self.file = file
        self.contentType = contentType
        self.contentEncoding = contentEncoding
        self.length = length
        self.sha256 = sha256
    }
}

extension QueueStore {
    /// Stores an artifact, or merges it into the one of the same name.
    public func createArtifact(_ artifact: Artifact, now: Timestamp) async throws -> Artifact {
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
            }
            var decision = Decision(answer: stored)
            decision.statements.append(
                """
                insert into tcl.artifacts (task_id, run_id, name, storage_type, content_type, content_length, details,
                    expires, blob_id, present)
                values (\(stored.taskID), \(stored.runID), \(stored.name), \(stored.content.storageType),
                    \(stored.contentType), \(stored.contentLength), \(stored.content.details), \(stored.expires),
                    \(stored.blobID), true)
                on conflict (task_id, run_id, name) do update set storage_type = excluded.storage_type,
                    content_type = excluded.content_type, content_length = excluded.content_length,
                    details = excluded.details, expires = excluded.expires
                """
            )
            if stored.content != .blob {
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

    /// Finds the artifact whose bytes have this name.
    public func artifact(blobID: String) async throws -> Artifact? {
        try await pool.query(
            "select \(unsafe: Self.artifactColumns) from tcl.artifacts a where a.blob_id = \(blobID)"
        ).first.map { try Artifact(row: $0) }
    }

    /// Records uploaded bytes; returns the file they replace.
    public func storeBlob(_ blob: Blob, now: Timestamp) async throws -> String? {
        try await pool.query(
            """
            with old as (select file from tcl.blobs where blob_id = \(blob.id)),
            stored as (
                insert into tcl.blobs (blob_id, file, content_type, content_encoding, length, sha256, stored)
                values (\(blob.id), \(blob.file), \(blob.contentType), \(blob.contentEncoding), \(blob.length),
                    \(blob.sha256), \(now))
                on conflict (blob_id) do update set file = excluded.file, content_type = excluded.content_type,
                    content_encoding = excluded.content_encoding, length = excluded.length,
                    sha256 = excluded.sha256, stored = excluded.stored
            )
            select file from old
            """
        ).first?.string("file")
    }

    /// Finds uploaded bytes, and the name of the artifact they belong to.
    public func blob(_ id: String, now: Timestamp) async throws -> (blob: Blob, artifact: String)? {
        try await pool.query(
            """
            select b.blob_id, b.file, b.content_type, b.content_encoding, b.length, b.sha256, a.name
            from tcl.blobs b join tcl.artifacts a on a.blob_id = b.blob_id
            where b.blob_id = \(id) and a.expires > \(now)
            """
        ).first.map { row in
            (
                Blob(
                    id: try row.string("blob_id"),
                    file: try row.string("file"),
                    contentType: try row.string("content_type"),
                    contentEncoding: try row.optionalString("content_encoding"),
                    length: try row.int("length"),
                    sha256: try row.string("sha256")
                ), try row.string("name")
            )
        }
    }

    /// Forgets some expired artifacts; returns the files that may be removed now.
    public func forgetArtifacts(limit: Int = 100, now: Timestamp) async throws -> [String] {
        try await pool.query(
            """
            with gone as (
                delete from tcl.artifacts a using (
                    select task_id, run_id, name from tcl.artifacts where expires < \(now) order by expires
                    limit \(limit) for update skip locked
                ) x where a.task_id = x.task_id and a.run_id = x.run_id and a.name = x.name returning a.blob_id
            )
            delete from tcl.blobs b using gone where b.blob_id = gone.blob_id returning b.file
            """
        ).map { try $0.string("file") }
    }

    private static let artifactColumns = """
        a.task_id, a.run_id, a.name, a.storage_type, a.content_type, a.content_length, a.details, a.expires, a.blob_id
        """
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
