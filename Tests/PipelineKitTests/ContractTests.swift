// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import StepKit
import StepTestSupport
import Testing
import TestSupport

@testable import PipelineKit

/// The contract that all step services share, seen through pipelines.
@Suite(.timeLimit(.minutes(15)))
struct ContractTests {
    @Test func `33: a long poll of a pipeline ends with the change, whichever replica is asked`() async throws {
        try await PipelineWorld.with(replicas: 2) { world in
            // Nothing happens to it but what the test does.
            try await world.create("p", [world.step("a", [], ["manual": true])])
            try await world.reach("p", "running")
            for replica in 0..<2 {
                var quickest = Duration.seconds(60)
                // A busy machine is late now and then; whoever is not told of changes is late every time.
                for round in 0..<5 {
                    let known = try await world.call("GET", "/p/status", replica: replica)
                    let tag = try #require(known.headers["ETag"])
                    async let waiting = Self.timed {
                        let headers = ["If-None-Match": tag]
                        return try await world.call("GET", "/p/status?wait=30", headers: headers, replica: replica)
                    }
                    try await Task.sleep(for: .milliseconds(100))
                    let word = round.isMultiple(of: 2) ? "pause" : "resume"
                    let begun = ContinuousClock.now
                    #expect(try await world.call("POST", "/p/\(word)").status == 200)
                    let (answer, end) = try await waiting
                    #expect(answer.status == 200)
                    #expect(answer.body["info"]?["paused"] == .bool(word == "pause"))
                    #expect(answer.headers["ETag"] != tag)
                    quickest = min(quickest, end - begun)
                }
                #expect(quickest < .seconds(1), "replica \(replica)")
                #expect(try await world.call("POST", "/p/resume").status == 200)
            }
            let tag = try #require(try await world.call("GET", "/p/status").headers["ETag"])
            for query in ["", "?wait=1"] {
                let same = try await world.call("GET", "/p/status\(query)", headers: ["If-None-Match": tag])
                #expect(same.status == 304)
                #expect(same.headers["ETag"] == tag)
                #expect(same.body.isNull)
            }
            for wrong in ["0", "61", "x"] {
                #expect(try await world.call("GET", "/p/status?wait=\(wrong)").status == 400, "\(wrong)")
            }
        }
    }

    /// What a call answers, and when.
    private static func timed(
        _ body: @Sendable () async throws -> Answer
    ) async throws -> (Answer, ContinuousClock.Instant) {
        let answer = try await body()
        return (answer, .now)
    }

    @Test func `35: the audit of a pipeline that somebody changed says where`() async throws {
        try await PipelineWorld.with { world in
            try await world.create("p", [world.step("a")])
            try await world.reach("p", "completed")
            try await world.create("q", [])
            #expect(try await world.call("GET", "/p/events?verify=true").body == ["verified": true, "broken_at": nil])
            let events: SQL = "shipit_pipeline.events"
            let last = "where sequence = 3 and step_id = (select id from shipit_pipeline.steps where uid = 'p')"
            for change: SQL in ["update \(events) set actor = 'nobody'", "delete from \(events)"] {
                await #expect(throws: PostgresError.self) { try await world.pool.execute(change) }
            }
            try await world.pool.pipeline([
                "alter table \(events) disable trigger events_are_append_only",
                "update \(events) set data = '{}', actor = 'nobody' \(unsafe: last)",
                "alter table \(events) enable trigger events_are_append_only",
            ])
            #expect(try await world.call("GET", "/p/events?verify=true").body == ["verified": false, "broken_at": 3])
            // Each has a chain of its own.
            #expect(try await world.call("GET", "/q/events?verify=true").body == ["verified": true, "broken_at": nil])
        }
    }

    @Test func `36: pages of pipelines show each that was there once, whatever is created meanwhile`() async throws {
        try await PipelineWorld.with { world in
            try await world.pool.execute(
                """
                insert into shipit_pipeline.steps (uid, incarnation, definition, definition_sha256, state, created_by,
                    created, updated, last_hash)
                select 'old-' || n, 1, '{}', '', 'completed', 'c',
                    now() - interval '1 hour' + (n / 10) * interval '1 second', now(), '' from generate_series(1, 1000) n
                """
            )
            var (seen, token): ([String], String) = ([], "")
            for page in 0..<100 {
                try await world.create("new-\(page)", [])
                let answer = try await world.call("GET", "/?limit=100\(token)")
                #expect(answer.status == 200)
                #expect(answer.body["steps"]?.array?.count ?? 0 <= 100)
                seen += answer.body["steps"]?.array?.compactMap { $0["uid"]?.string } ?? []
                guard let next = answer.body["continuationToken"]?.string else { break }
                token = "&continuationToken=\(next)"
            }
            let old = seen.filter { $0.hasPrefix("old-") }
            #expect(old.count == 1000)
            #expect(Set(old).count == 1000)
            #expect(try await world.call("GET", "/?continuationToken=nonsense").status == 400)
        }
    }

    @Test func `38: without credentials nothing is changed, and a right to one pipeline is none to another`()
        async throws
    {
        try await PipelineWorld.with { world in
            let body = world.definition([world.step("a", [], ["manual": true])])
            try await world.create("p", [world.step("a", [], ["manual": true])])
            try await world.reach("p", "running")
            let before = try await world.call("GET", "/p/status")
            let why: JSONValue = ["status": "success", "reason": "because"]
            let calls: [(method: String, path: String, body: JSONValue?)] = [
                ("PUT", "/p", body), ("PUT", "/new", body), ("POST", "/", ["uid": "new", "pipeline": body]),
                ("DELETE", "/p?force=true", nil), ("POST", "/p/cancel", [:]), ("POST", "/p/pause", nil),
                ("POST", "/p/resume", nil), ("POST", "/p/retry", [:]), ("POST", "/p/steps/a/start", nil),
                ("POST", "/p/steps/a/retry", nil), ("POST", "/p/steps/a/skip", nil),
                ("POST", "/p/steps/a/cancel", nil), ("POST", "/p/steps/a/resolve", why),
                ("PUT", "/p/steps/a/parameters", [:]), ("POST", "/p/steps/a/override-freeze", why),
                ("PUT", "/freezes/f", ["reason": "x"]), ("DELETE", "/freezes/f", nil), ("DELETE", "/locks/l", nil),
                ("PUT", "/templates/t", ["definition": body]), ("DELETE", "/templates/t", nil),
                ("POST", "/templates/t/instantiate", ["uid": "new"]), ("PUT", "/ticktock", nil),
            ]
            let prefix = "project:releng:services/shipit_pipeline"
            let verbs = [
                "create", "delete", "cancel", "pause", "retry", "resolve", "freeze/manage", "lock/break",
                "template/manage",
            ]
            let other = "c \(prefix)/view " + verbs.map { "\(prefix)/\($0)/q" }.joined(separator: " ")
            for call in calls {
                let nobody = try await world.call(call.method, call.path, call.body, as: nil)
                #expect(nobody.status == 401, "\(call.method) \(call.path): \(nobody.body)")
                let stranger = try await world.call(call.method, call.path, call.body, as: other)
                #expect(stranger.status == 403, "\(call.method) \(call.path): \(stranger.body)")
            }
            // Whoever may do it to one name does it to that one.
            #expect(try await world.call("PUT", "/q", body, as: other).status == 200)
            #expect(try await world.call("POST", "/q/cancel", as: other).status == 200)
            let after = try await world.call("GET", "/p/status")
            #expect(after.headers["ETag"] == before.headers["ETag"])
            #expect(try await world.call("GET", "/new/status").status == 404)
        }
    }
}
