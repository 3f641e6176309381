// SPDX-License-Identifier: MPL-2.0

import Postgres

extension InventoryStore {
    /// Which machine a worker is.
    package enum Resolution: Sendable {
        case machine(MachineDetail)
        /// Several fit.
        case ambiguous([WorkerName])
        /// The worker is known, its machine is not.
        case unmanaged
        case unknown
    }

    /// Finds the machine of a worker: by the names of workers, then by those of machines, then by the patterns that full
    /// names are made of.
    ///
    /// No resolver is asked: the answer is as quick as the database, and requests that come together ask it together.
    /// With `onlyWorkers` all names have to fit the record of a worker exactly.
    package func resolve(
        _ worker: WorkerName,
        patterns: [String] = [],
        onlyWorkers: Bool = false
    ) async throws -> Resolution {
        let found = try await byWorker.add(worker.workerID)
        let fitting = found.workers.filter { $0.fits(worker, exactly: onlyWorkers) }
        let best = fitting.map { $0.rank(worker) }.max()
        let known = fitting.filter { $0.rank(worker) == best }
        let machines = Set(known.compactMap(\.machine))
        if machines.count > 1 { return .ambiguous(known.map(\.worker)) }
        if let id = machines.first, let detail = found.machines.first(where: { $0.machine.id == id }) {
            return .machine(detail)
        }
        guard !onlyWorkers else { return known.isEmpty ? .unknown : .unmanaged }
        let named = try await found.named.isEmpty ? self.machines(called: patterns, for: worker) : found.named
        if named.count > 1 { return .ambiguous(named.map { WorkerName($0.machine.name) }) }
        if let detail = named.first { return .machine(detail) }
        return known.isEmpty ? .unknown : .unmanaged
    }

    /// The machines whose full names the patterns make of the worker's names.
    private func machines(called patterns: [String], for worker: WorkerName) async throws -> [MachineDetail] {
        guard !patterns.isEmpty else { return [] }
        let names = patterns.compactMap { Self.filled($0, worker)?.lowercased() }
        return try await details(where: "m.id in (select id from roller.machines where lower(fqdn) = any(\(names)))")
    }

    /// Whether a pattern needs nothing but names that workers have.
    static func isFullName(_ pattern: String) -> Bool {
        filled(pattern, WorkerName("w", group: "g", provisionerID: "p", workerType: "t"))
            .map { !$0.contains("{") && !$0.contains("}") } ?? false
    }

    /// A pattern with the worker's names in it; nil if it needs one that is not known.
    static func filled(_ pattern: String, _ worker: WorkerName) -> String? {
        var text = pattern
        for (name, value) in [
            ("{worker_id}", worker.workerID), ("{worker_group}", worker.workerGroup),
            ("{provisioner_id}", worker.provisionerID), ("{worker_type}", worker.workerType),
        ] where text.contains(name) {
            guard let value else { return nil }
            text = text.replacing(name, with: value)
        }
        return text
    }
}

/// A worker of the inventory.
struct KnownWorker: Sendable {
    let worker: WorkerName
    /// The id of its machine.
    let machine: String?

    init(row: PostgresRow) throws {
        worker = WorkerName(
            try row.string("worker_id"),
            group: try row.optionalString("worker_group"),
            provisionerID: try row.optionalString("provisioner_id"),
            workerType: try row.optionalString("worker_type")
        )
        machine = try row.optionalString("machine")
    }

    /// Pairs of what is asked for and what is known.
    private func pairs(_ asked: WorkerName) -> [(String?, String?)] {
        [
            (asked.workerGroup, worker.workerGroup), (asked.provisionerID, worker.provisionerID),
            (asked.workerType, worker.workerType),
        ]
    }

    /// Whether nothing that is known differs from what is asked for; exactly, if all of it has to be known.
    func fits(_ asked: WorkerName, exactly: Bool) -> Bool {
        pairs(asked).allSatisfy { asked, known in asked == nil || asked == known || (known == nil && !exactly) }
    }

    /// How much of what is asked for is known.
    func rank(_ asked: WorkerName) -> Int {
        pairs(asked).filter { asked, known in asked != nil && asked == known }.count
    }
}
