// SPDX-License-Identifier: MPL-2.0

import JSON
import Logging
import Outbox
import Postgres
import Pulse
import Taskcluster
import TestSupport

@testable import RollerKit

/// A database with the tables of roller, and a namespace of the broker.
struct RollerWorld: Sendable {
    let pool: PostgresPool
    let url: String
    let pulse: PulseConnection
    let outbox: Outbox
    let exchanges: RollerExchanges
    var notifications = NotificationSettings()

    var jobs: JobStore {
        JobStore(pool: pool, outbox: outbox, exchanges: exchanges, notifications: notifications)
    }

    var inventory: InventoryStore { InventoryStore(pool: pool) }

    /// Builds a world and takes everything down afterwards.
    static func with<R: Sendable>(_ body: @Sendable (RollerWorld) async throws -> R) async throws -> R {
        var logger = Logger.current
        logger.logLevel = .error
        return try await withLogger(logger) { _ in try await make(body) }
    }

    private static func make<R: Sendable>(_ body: @Sendable (RollerWorld) async throws -> R) async throws -> R {
        try await OwnDatabase.with("roller", poolSize: 6) { pool, url in
            let pulse = PulseConnection(try PulseConfiguration(url: Broker.url), name: "roller-tests")
            let exchanges = RollerExchanges(namespace: Broker.uniqueName())
            func cleanUp() async {
                for name in [exchanges.dispatch, exchanges.events] { try? await pulse.deleteExchange(name) }
                _ = try? await pulse.deleteQueue(exchanges.jobQueue(pool: "default"))
                await pulse.shutDown()
            }
            do {
                try await RollerMigrations.migrate(pool)
                let result = try await body(
                    RollerWorld(
                        pool: pool,
                        url: url,
                        pulse: pulse,
                        outbox: Outbox(schema: RollerMigrations.schema),
                        exchanges: exchanges
                    )
                )
                await cleanUp()
                return result
            } catch {
                await cleanUp()
                throw error
            }
        }
    }

    // MARK: - Making things

    /// Stores a machine and answers its id.
    func machine(_ name: String = "t-linux64-ms-001", worker: WorkerName? = nil) async throws -> String {
        let id =
            try await pool.query(
                "insert into roller.machines (name, fqdn, ip) values (\(name), \(name + ".test.releng.mdc1.mozilla.com"), '127.0.0.1') returning id"
            ).first?.string("id") ?? ""
        if let worker {
            _ = try await pool.execute(
                """
                with w as (
                    insert into roller.tc_workers (provisioner_id, worker_type, worker_group, worker_id)
                    values (\(worker.provisionerID), \(worker.workerType), \(worker.workerGroup), \(worker.workerID))
                    returning id)
                insert into roller.worker_machines select id, \(id)::uuid from w
                """
            )
        }
        return id
    }

    /// Stores a job on a machine of its own.
    func newJob(_ action: ActionDescription) async throws -> Job {
        let name = "machine-\(UInt32.random(in: .min ... .max))"
        let new = NewJob(
            action,
            machine: try await machine(name),
            worker: WorkerName(name),
            clientID: "somebody",
            source: .api
        )
        guard case .created(let job) = try await jobs.create(new) else { throw Unexpected() }
        return job
    }

    /// Claims a job as a worker would.
    func claim(_ id: String, fence: Int) async throws {
        _ = try await pool.execute(
            """
            update roller.jobs set state = 'claimed', fence = \(fence), runner = 'r', attempts = attempts + 1,
                claimed = clock_timestamp(), updated = clock_timestamp() where id = \(id)::uuid
            """
        )
    }

    func count(_ table: String) async throws -> Int {
        try await pool.query("select count(*) as n from roller.\(unsafe: table)").first?.int("n") ?? -1
    }
}

struct Unexpected: Error {}
