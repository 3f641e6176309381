// SPDX-License-Identifier: MPL-2.0

package import APIServer
import Core
import JSON
package import Postgres

/// Tells load balancers and people how roller is.
///
/// What takes the service down is an error; what leaves it answering is a warning.
package struct RollerHealth: Sendable {
    /// How bad it is if a check fails.
    package enum Level: String, Sendable {
        case warning, error
    }

    /// One thing that is looked at.
    package struct Check: Sendable {
        let name: String
        let level: Level
        let look: @Sendable () async throws -> Void

        package init(_ name: String, _ level: Level, _ look: @escaping @Sendable () async throws -> Void) {
            self.name = name
            self.level = level
            self.look = look
        }
    }

    /// Something that works, but not as it should.
    package struct Trouble: Error, CustomStringConvertible {
        package let description: String

        package init(_ description: String) {
            self.description = description
        }
    }

    let checks: [Check]

    package init(_ checks: [Check]) {
        self.checks = checks
    }

    /// The checks that ask the database.
    package static func storeChecks(_ pool: PostgresPool) -> [Check] {
        [
            Check("database", .error) { try await pool.checkHealth() },
            Check("migrations", .error) {
                try await Migrator.verify(pool, schema: RollerMigrations.schema, migrations: RollerMigrations.all)
            },
            Check("workers", .warning) {
                let live = try await pool.query(
                    "select count(*) as n from roller.runners where heartbeat > now() - interval '60 seconds'"
                ).first?.int("n")
                if live == 0 { throw Trouble("no worker has been heard of for a minute") }
            },
            Check("queue", .warning) {
                let old = try await pool.query(
                    """
                    select exists (select 1 from roller.jobs where state in ('queued', 'waiting')
                        and created < now() - interval '15 minutes') as old
                    """
                ).first?.bool("old")
                if old == true { throw Trouble("a job has waited for more than 15 minutes") }
            },
        ]
    }

    /// Whether the secrets that the inventory names are there.
    package static func inventoryCheck(_ pool: PostgresPool, _ credentials: CredentialStore) -> Check {
        Check("inventory", .warning) {
            let rows = try await pool.query(
                """
                select distinct credential_ref from roller.controllers where credential_ref is not null
                order by credential_ref
                """
            )
            let missing = try rows.map { try $0.string("credential_ref") }.filter { !credentials.contains($0) }
            guard let first = missing.first else { return }
            let others = missing.count > 1 ? " and \(missing.count - 1) others" : ""
            throw Trouble("controllers name credentials that are not there: \(first)\(others)")
        }
    }

    /// The routes that answer about it, in place of the usual ones.
    package var routes: [RawRoute] {
        [
            RawRoute(.get, prefix: "/__heartbeat__", name: "heartbeat") { _ in await heartbeat() },
            RawRoute(.get, prefix: "/__lbheartbeat__", name: "lbheartbeat") { _ in RawResponse(status: 200) },
        ]
    }

    /// The worst that was found, and what each check found.
    func heartbeat() async -> RawResponse {
        var found: [(index: Int, problem: String?)] = []
        await withTaskGroup(of: (Int, String?).self) { group in
            for (index, check) in checks.enumerated() {
                group.addTask {
                    do {
                        try await withTimeout(.seconds(5)) { try await check.look() }
                        return (index, nil)
                    } catch {
                        return (index, "\(error)")
                    }
                }
            }
            for await result in group { found.append(result) }
        }
        var states = JSONObject()
        var details = JSONObject()
        var worst = "ok"
        for (index, problem) in found.sorted(by: { $0.index < $1.index }) {
            let check = checks[index]
            states[check.name] = .string(problem == nil ? "ok" : check.level.rawValue)
            guard let problem else { continue }
            details[check.name] = .string(problem)
            if worst != "error" { worst = check.level.rawValue }
        }
        return RollerAPI.json(
            worst == "error" ? 500 : 200,
            ["status": .string(worst), "checks": .object(states), "details": .object(details)]
        )
    }
}
