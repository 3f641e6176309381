// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import StepKit
import TestSupport
import Testing

@testable import SignoffKit

/// People who are revoked, and what they had signed.
@Suite(.timeLimit(.minutes(15)))
struct RevocationTests {
    @Test func `55: a revocation comes before the last signature or after it, never in between`() async throws {
        try await SignoffWorld.with(servers: 2) { world in
            for round in 0..<40 {
                let uid = "race-\(round)"
                try await world.create(uid, ["releng": 2])
                let gone = "gone-\(round)"
                #expect(try await world.sign(uid, as: try world.bearer(gone)).status == 200)
                let last = try world.bearer("last-\(round)")
                async let signed = world.sign(uid, as: last, server: 1)
                let email = JSONValue.string("\(gone)@example.com")
                async let answered = world.call("POST", "/admin/revocations", ["email": email, "reason": "left"])
                let (signature, answer) = (try await signed, try await answered)
                #expect(signature.status == 200)
                #expect(answer.status == 200)
                let isCompleted = try await world.state(uid) == "completed"
                #expect(answer.body[isCompleted ? "unchanged" : "revoked"] == [.string(uid)], "\(uid)")
                let signees = try await world.call("GET", "/\(uid)/status").body["info"]?["signees"]?.array
                #expect(signees?.count == (isCompleted ? 2 : 1), "\(uid)")
            }
        }
    }

    @Test func `55: who was revoked counts no more, even if the one who revoked them died before saying so anywhere`()
        async throws
    {
        try await SignoffWorld.with { world in
            try await world.create("s", ["releng": 2])
            #expect(try await world.sign("s", as: try world.bearer("gone")).status == 200)
            _ = try await Revocations(pool: world.pool)
                .add(subject: nil, email: "gone@example.com", at: world.clock.now(), by: "admin", reason: "left")
            #expect(try await world.sign("s", as: try world.bearer("one")).status == 200)
            #expect(try await world.state("s") == "running")
            let events = try await world.call("GET", "/s/events").body["events"]?.array ?? []
            let revoked = try #require(events.first { $0["kind"] == "revoked" })
            #expect(revoked["actor"] == "admin")
            #expect(revoked["data"]?["reason"] == "left")
            #expect(try await world.sign("s", as: try world.bearer("two")).status == 200)
            #expect(try await world.state("s") == "completed")
        }
    }

    @Test func `55: a step that is deleted while its signer is revoked keeps nothing else from being revoked`()
        async throws
    {
        try await SignoffWorld.with { world in
            for step in ["a", "b"] {
                try await world.create(step, ["releng": 2])
                #expect(try await world.sign(step, as: try world.bearer("gone")).status == 200)
            }
            try await withThrowingTaskGroup(of: JSONValue?.self) { group in
                try await world.pool.transaction { connection in
                    try await connection.execute("update shipit_signoff.steps set deleted_at = now() where uid = 'a'")
                    group.addTask {
                        let body: JSONValue = ["email": "gone@example.com", "reason": "l\u{0}eft"]
                        return try await world.call("POST", "/admin/revocations", body).body["revoked"]
                    }
                    try await eventually {
                        try await !world.pool.query(
                            """
                            select from pg_stat_activity
                            where datname = current_database() and wait_event_type = 'Lock'
                            """
                        ).isEmpty
                    }
                }
                #expect(try await group.next() == ["b"])
            }
            #expect(try await world.call("GET", "/admin/revocations?verify=true").body["verified"] == true)
        }
    }

    @Test func `35: revocations are an audit of their own that shows who has changed it`() async throws {
        try await SignoffWorld.with { world in
            for name in ["one", "two", "three"] {
                let body: JSONValue = ["sub": .string(name), "reason": "left"]
                #expect(try await world.call("POST", "/admin/revocations", body).status == 200)
            }
            let path = "/admin/revocations?verify=true"
            let whole = try await world.call("GET", path).body
            #expect(whole["verified"] == true)
            let list = try await world.call("GET", "/admin/revocations").body["events"]?.array
            #expect(list?.map { $0["data"]?["sub"] } == ["one", "two", "three"])
            #expect(try await world.call("GET", path, as: "c project:x").status == 403)
            await #expect(throws: PostgresError.self) {
                try await world.pool.execute("update shipit_people.revocations set sub = 'x' where sequence = 2")
            }
            try await world.pool.execute("alter table shipit_people.revocations disable trigger user")
            try await world.pool.execute("update shipit_people.revocations set sub = 'x' where sequence = 2")
            let changed = try await world.call("GET", path).body
            #expect(changed["verified"] == false)
            #expect(changed["broken_at"] == 2)
        }
    }

    @Test func `revocations of the time before services shared them are carried over once`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("s", ["releng": 2])
            #expect(try await world.sign("s", as: try world.bearer("back")).status == 200)
            try await world.pool.execute(
                """
                insert into shipit_signoff.revocations (sub, email, at, actor, reason)
                values (null, 'back@example.com', now() - interval '1 day', 'admin', 'left'),
                    (null, 'gone@example.com', now() + interval '1 minute', 'admin', 'left')
                """
            )
            for _ in 0..<2 { try await SignoffMigrations.migrate(world.pool) }
            let events = try await world.call("GET", "/admin/revocations").body["events"]
            #expect(events?.array?.count == 2)
            #expect(try await world.call("GET", "/admin/revocations?verify=true").body["verified"] == true)
            // What was signed after it stays, and a token from before it signs nothing.
            #expect(try await world.sign("s", as: try world.bearer("gone")).code == "token_revoked")
            #expect(try await world.sign("s", as: try world.bearer("one")).status == 200)
            #expect(try await world.state("s") == "completed")
        }
    }
}
