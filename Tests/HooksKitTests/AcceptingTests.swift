// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Pulse
import Schedules
import Taskcluster
import TestSupport
import Testing

@testable import HooksKit

@Suite(.timeLimit(.minutes(8)))
struct AcceptingTests {
    private let name = HookName(group: "g", hook: "h")

    private func draft(_ number: Int, key: String?, rendering: Rendering? = nil) -> FireDraft {
        let now = Timestamp.now()
        return FireDraft(
            name: name,
            taskID: Slugid.make(),
            firedBy: .pulseMessage,
            context: ["payload": ["n": JSONValue(number)], "text": "a \"quoted\" \\ text"],
            created: now,
            started: now,
            rendering: rendering ?? .task(["n": JSONValue(number)]),
            deduplicationKey: key,
            rendered: now
        )
    }

    @Test func `of many fires written down at once copies are left out, and as many are leased as there is room for`()
        async throws
    {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            let drafts = [
                draft(0, key: "a"), draft(1, key: "b"), draft(2, key: "a"), draft(3, key: nil), draft(4, key: nil),
                draft(5, key: "c", rendering: .declined),
            ]
            // Looked at before anybody else can take them.
            let (fires, rows) = try await world.pool.transaction { connection in
                let fires = try await world.fires.accept(drafts, slots: 3, on: connection)
                let rows = try await connection.query(
                    "select task_id, lease, context, outcome from hooks.fires order by fire_id"
                )
                return (fires, rows)
            }
            #expect(fires.map(\.taskID) == [drafts[0].taskID, drafts[1].taskID])
            #expect(fires.map(\.definition) == [#"{"n":0}"#, #"{"n":1}"#])
            #expect(try rows.map { try $0.string("task_id") } == [0, 1, 3, 4, 5].map { drafts[$0].taskID })
            #expect(try rows.map { try $0.int("lease") } == [1, 1, 0, 0, 0])
            #expect(try rows.last?.string("outcome") == "declined")
            #expect(try JSONValue(parsing: rows[0].string("context")) == .object(drafts[0].context))
        }
    }

    @Test func `fires of a version are written down only while the hook has it`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            let row = try await world.pool.query("select definition_version from hooks.hooks").first
            let version = try #require(try row?.int("definition_version"))
            let accepted = try await world.fires.accept(
                [draft(0, key: "a"), draft(1, key: "a")],
                of: name,
                version: version,
                slots: 2
            )
            #expect(accepted?.count == 1)
            // A copy of what was accepted is left out, which is not the same as a hook that has changed.
            #expect(
                try await world.fires.accept([draft(2, key: "a")], of: name, version: version, slots: 1)?.count == 0
            )
            #expect(try await world.fires.accept([draft(3, key: "b")], of: name, version: version + 1, slots: 1) == nil)
            let count = try await world.pool.query("select count(*) as n from hooks.fires").first?.int("n")
            #expect(count == 1)
        }
    }

    @Test func `whoever wants to fire waits for room, but not for ever`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let dispatcher = FireDispatcher(fires: world.fires, performer: world.performer)
            let all = dispatcher.reserve(.max)
            #expect(all > 0)
            #expect(await dispatcher.reserve(10, patience: .milliseconds(20)) == 0)
            async let granted = dispatcher.reserve(10, patience: .seconds(60))
            try await Task.sleep(for: .milliseconds(20))
            dispatcher.submit([], reserved: all)
            #expect(await granted == 10)
        }
    }
}
