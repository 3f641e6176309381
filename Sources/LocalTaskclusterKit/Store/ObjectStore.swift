// SPDX-License-Identifier: MPL-2.0
public import Postgres
public import Schedules

import JSON
import Taskcluster

/// What the object service knows in PostgreSQL; the bytes are in a `BlobStore`.
public struct ObjectStore: Sendable {
    private let pool: PostgresPool

    /// Uses the tables of the schema `tcl`.
    public init(pool: PostgresPool) {
        self.pool = pool
    }

    /// The statement that reserves a name; the same upload may extend its expiry, another one changes nothing.
    static func reserve(_ reservation: ObjectReservation, now: Timestamp) -> SQL {
        """
        insert into tcl.objects (name, project_id, upload_id, expires, blob_id, created)
        values (\(reservation.name), \(reservation.projectID), \(reservation.uploadID), \(reservation.expires),
            \(Slugid.make()), \(now))
        on conflict (name) do update set expires = greatest(objects.expires, excluded.expires)
        where objects.upload_id = excluded.upload_id and objects.project_id = excluded.project_id
        """
    }

    /// An object by name, finished or not, unless it has expired.
    public func object(_ name: String, now: Timestamp) async throws -> StoredObject? {
        try await pool.query(
            "select \(unsafe: Self.columns) from tcl.objects where name = \(name) and expires > \(now)"
        ).first.map { try StoredObject(row: $0) }
    }

    /// Begins an upload, or goes on with one on the same terms.
    public func begin(
        _ reservation: ObjectReservation,
        contentType: String?,
        hashes: ObjectHashes,
        now: Timestamp
    ) async throws -> StoredObject {
        try await pool.transaction { connection in
            let rows = try await connection.pipeline([
                """
                insert into tcl.objects (name, project_id, upload_id, expires, blob_id, created)
                values (\(reservation.name), \(reservation.projectID), \(reservation.uploadID), \(reservation.expires),
                    \(Slugid.make()), \(now)) on conflict (name) do nothing
                """,
                "select \(unsafe: Self.columns) from tcl.objects where name = \(reservation.name) for update",
            ])
            guard let row = rows[1].first else {
                throw QueueProblem(.notFound, "There is no object \(reservation.name).")
            }
            let object = try StoredObject(row: row)
            guard object.reservation == reservation, !hashes.contradicts(object.hashes) else {
                throw QueueProblem(
                    .conflict,
                    "Object \(reservation.name) exists with another project, upload, expiry or hash."
                )
            }
            guard !object.isFinished else { return object }
            let updated = try await connection.query(
                """
                update tcl.objects set content_type = coalesce(\(contentType)::text, content_type),
                    hashes = \(object.hashes.merging(hashes).json) where name = \(reservation.name)
                returning \(unsafe: Self.columns)
                """
            )
            return try updated.first.map { try StoredObject(row: $0) } ?? object
        }
    }

    /// Ends an upload: from now on the object can be read and never changes.
    ///
    /// - Parameters:
    ///   - name: The object.
    ///   - projectID: The project that the caller believes it belongs to.
    ///   - uploadID: The upload that the caller believes is complete.
    ///   - stated: The hashes the caller states.
    ///   - now: The moment of the request.
    ///   - look: Looks at the bytes that were stored; computes hashes if asked to.
    /// - Throws: `QueueProblem` if the object is another one's, or its bytes are not there or not the stated ones.
    public func finish(
        _ name: String,
        projectID: String,
        uploadID: String,
        stated: ObjectHashes,
        now: Timestamp,
        look: (_ blobID: String, _ hashing: Bool) async throws -> BlobFacts?
    ) async throws {
        guard let object = try await object(name, now: now) else {
            throw QueueProblem(.notFound, "There is no object \(name).")
        }
        guard object.reservation.projectID == projectID else {
            throw QueueProblem(.input, "Object \(name) does not belong to project \(projectID).")
        }
        guard object.reservation.uploadID == uploadID else {
            throw QueueProblem(.conflict, "Object \(name) is being uploaded by another upload.")
        }
        guard !object.isFinished else {
            guard stated.isSubset(of: object.hashes) else {
                throw QueueProblem(.conflict, "Object \(name) is finished, with other hashes.")
            }
            return
        }
        guard !stated.contradicts(object.hashes) else {
            throw QueueProblem(.conflict, "Object \(name) was announced with other hashes.")
        }
        let known = object.hashes.merging(stated)
        guard let facts = try await look(object.blobID, known.isEmpty) else {
            throw QueueProblem(.input, "Nothing has been uploaded for object \(name) yet.")
        }
        let computed = ObjectHashes(facts)
        guard !known.contradicts(computed) else {
            throw QueueProblem(.input, "The stored bytes of object \(name) have other hashes than was stated.")
        }
        try await pool.execute(
            """
            update tcl.objects set finished = true, hashes = \(known.merging(computed).json)
            where name = \(name) and upload_id = \(uploadID) and not finished
            """
        )
    }

    /// Some expired objects.
    func expired(limit: Int, now: Timestamp) async throws -> [StoredObject] {
        try await pool.query(
            "select \(unsafe: Self.columns) from tcl.objects where expires < \(now) order by expires limit \(limit)"
        ).map { try StoredObject(row: $0) }
    }

    /// Forgets objects if they are still expired.
    func forget(_ names: [String], now: Timestamp) async throws {
        try await pool.execute(
            "delete from tcl.objects where name = any(\(names)::text[]) and expires < \(now)"
        )
    }

    private static let columns = "name, project_id, upload_id, expires, blob_id, content_type, hashes, finished"
}

extension StoredObject {
    fileprivate init(row: PostgresRow) throws(PostgresError) {
        self.init(
            reservation: ObjectReservation(
                name: try row.string("name"),
                projectID: try row.string("project_id"),
                uploadID: try row.string("upload_id"),
                expires: try row.timestamp("expires")
            ),
            blobID: try row.string("blob_id"),
            contentType: try row.string("content_type"),
            hashes: ObjectHashes(json: try row.json("hashes")),
            isFinished: try row.bool("finished")
        )
    }
}
