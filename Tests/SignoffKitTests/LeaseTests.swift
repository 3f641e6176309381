// SPDX-License-Identifier: MPL-2.0

import Postgres
import Testing
import TestSupport

@testable import SignoffKit
@testable import StepKit

/// Steps that somebody looks at.
@Suite(.timeLimit(.minutes(5)))
struct LeaseTests {
    @Test func `20: who holds a step for long keeps the leases of other steps from nothing`() async throws {
        try await SignoffWorld.with { world in
            for uid in ["held", "other"] {
                try await world.create(uid, ["releng": 1])
                try await world.store.wake([try #require(try await world.store.find(uid)).id])
            }
            let claims = try await world.store.claim(limit: 10, owner: "tests", lease: .seconds(60))
            #expect(claims.count == 2)
            func isLong(_ uid: String) async throws -> Bool? {
                try await world.pool.query(
                    """
                    select lease_until > now() + interval '300 seconds' as long from shipit_signoff.steps
                    where uid = \(uid)
                    """
                ).first?.bool("long")
            }
            let leases = claims.map { (id: $0.step.id, epoch: $0.epoch) }
            try await world.pool.transaction { connection in
                _ = try await connection.query("select 1 from shipit_signoff.steps where uid = 'held' for update")
                try await world.store.prolong(leases, lease: .seconds(600))
                #expect(try await isLong("other") == true)
                #expect(try await isLong("held") == false)
            }
            // The next time it is free, and a lease that somebody else has taken is theirs.
            try await world.store.prolong(leases.map { (id: $0.id, epoch: $0.epoch - 1) }, lease: .seconds(600))
            #expect(try await isLong("held") == false)
            try await world.store.prolong(leases, lease: .seconds(600))
            #expect(try await isLong("held") == true)
        }
    }
}
