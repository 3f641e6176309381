// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPClient
import JSON
import Outbox
import Postgres
import Pulse
import Synchronization
import Taskcluster
import TestSupport

@testable import RollerKit

/// Lets few worlds live at a time: each takes connections of the one database server.
private final class Turns: Sendable {
    private let state = Mutex((free: 3, waiting: [CheckedContinuation<Void, Never>]()))

    func enter() async {
        await withCheckedContinuation { continuation in
            let mayEnter = state.withLock { state in
                guard state.free == 0 else {
                    state.free -= 1
                    return true
                }
                state.waiting.append(continuation)
                return false
            }
            if mayEnter { continuation.resume() }
        }
    }

    func leave() {
        let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
            guard !state.waiting.isEmpty else {
                state.free += 1
                return nil
            }
            return state.waiting.removeFirst()
        }
        next?.resume()
    }
}

/// A database with the tables of roller, and a namespace of the broker.
struct RollerWorld: Sendable {
    private static let turns = Turns()

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
        await turns.enter()
        defer { turns.leave() }
        let admin = PostgresPool(
            PostgresConfiguration(url: try TestDatabase.url(), applicationName: "roller-tests", poolSize: 1)
        )
        let database = "test_roller_" + String(UInt64.random(in: .min ... .max), radix: 36)
        _ = try await admin.execute("create database \(unsafe: database)")
        let url = try url(of: database)
        let pool = PostgresPool(PostgresConfiguration(url: url, applicationName: "roller-tests", poolSize: 6))
        let pulse = PulseConnection(try PulseConfiguration(url: Broker.url), name: "roller-tests")
        let exchanges = RollerExchanges(namespace: Broker.uniqueName())
        func cleanUp() async {
            for name in [exchanges.dispatch, exchanges.events] { try? await pulse.deleteExchange(name) }
            await pulse.shutDown()
            pool.close()
            _ = try? await admin.execute("drop database if exists \(unsafe: database) with (force)")
            admin.close()
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

    private static func url(of database: String) throws -> String {
        let url = try TestDatabase.url()
        guard let slash = url.lastIndex(of: "/") else { return url }
        let query = url[slash...].firstIndex(of: "?").map { String(url[$0...]) } ?? ""
        return url[...slash] + database + query
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
