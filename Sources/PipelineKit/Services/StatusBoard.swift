// SPDX-License-Identifier: MPL-2.0

import Core
import Schedules
import StepKit
import Synchronization

/// Statuses of pipelines as they were sent last, each with what has to be unchanged for it to be sent again.
///
/// Nothing is sent from memory unless the database says, after the request has arrived, that it is current: readers see
/// what was written through any replica. Many who read at the same time share that question.
final class StatusBoard: Sendable {
    /// Everything a status depends on that can change in the database.
    struct Stamp: Sendable, Hashable {
        let id: Int
        /// Counts the changes of the pipeline's row.
        let version: Int
        /// Counts the changes of its steps and of what it waits for.
        let revision: Int
        /// Counts the changes of freezes.
        let freezes: Int
    }

    private struct Entry {
        let stamp: Stamp
        /// When time alone changes the status.
        let end: Timestamp
        let status: RenderedStatus
    }

    /// What was used lately, and what was used before that.
    private struct Memory {
        var young: [String: Entry] = [:]
        var old: [String: Entry] = [:]
        var size = 0
    }

    private let memory = Mutex(Memory())
    private let stamps: Coalescer<String, Stamp?>
    private let limit: Int
    private let readers = Atomic(0)

    /// Remembers up to about twice `limit` bytes; `reading` says what statuses of those names depend on.
    init(limit: Int = 2 << 20, reading: @escaping @Sendable ([String]) async throws -> [String: Stamp]) {
        self.limit = limit
        stamps = Coalescer { names in
            do {
                let found = try await reading(names)
                return names.map { .success(found[$0]) }
            } catch {
                return names.map { _ in .failure(error) }
            }
        }
    }

    /// How many statuses are being read.
    var underWay: Int { readers.load(ordering: .relaxed) }

    /// Counts a reader for as long as a body runs.
    func reading<R>(_ body: () async throws -> R) async rethrows -> R {
        readers.add(1, ordering: .relaxed)
        defer { readers.subtract(1, ordering: .relaxed) }
        return try await body()
    }

    /// What the status of a pipeline depends on now; nil if there is none of that name.
    func stamp(_ uid: String) async throws -> Stamp? {
        try await stamps.submit(uid)
    }

    /// The status that was sent when everything was as it is now.
    func status(_ uid: String, _ stamp: Stamp, at now: Timestamp) -> RenderedStatus? {
        memory.withLock { memory in
            if let entry = memory.young[uid] { return entry.stamp == stamp && now < entry.end ? entry.status : nil }
            guard let entry = memory.old.removeValue(forKey: uid), entry.stamp == stamp, now < entry.end else {
                return nil
            }
            insert(entry, uid, &memory)
            return entry.status
        }
    }

    /// Remembers a status that was made of what is not older than a stamp.
    func keep(_ status: RenderedStatus, of uid: String, _ stamp: Stamp, until end: Timestamp) {
        memory.withLock { insert(Entry(stamp: stamp, end: end, status: status), uid, &$0) }
    }

    private func insert(_ entry: Entry, _ uid: String, _ memory: inout Memory) {
        let previous = memory.young.updateValue(entry, forKey: uid)
        memory.size += entry.status.body.count - (previous?.status.body.count ?? 0)
        guard memory.size > limit else { return }
        memory.old = memory.young
        memory.young = [:]
        memory.size = 0
    }
}
