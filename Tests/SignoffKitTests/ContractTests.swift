// SPDX-License-Identifier: MPL-2.0

import APIServer
import HTTPClient
import JSON
import Postgres
import StepKit
import StepTestSupport
import Testing
import TestSupport

@testable import SignoffKit

/// The contract that all step services share, seen through sign-offs.
@Suite(.timeLimit(.minutes(15)))
struct ContractTests {
    private static let body: JSONValue = [
        "policy": ["method": "local", "definition": ["releng": 1]], "parameters": ["a": 1, "b": [1, 2.5]],
    ]

    @Test func `2: an empty list is an empty list`() async throws {
        try await SignoffWorld.with { world in
            let answer = try await world.call("GET", "/")
            #expect(answer.status == 200)
            #expect(answer.body == ["steps": []])
        }
    }

    @Test func `3: the same request again, keys in another order, is the same step`() async throws {
        try await SignoffWorld.with(servers: 2) { world in
            let first = try await world.call("PUT", "/p", Self.body)
            #expect(first.status == 200)
            #expect(first.body == [:])
            #expect(first.headers["Location"] == "/p")
            #expect(first.headers["ETag"] == "\"1\"")
            let again = try await world.call(
                "PUT",
                "/p",
                [
                    "uid": "p", "parameters": ["b": [1, 2.5], "a": 1.0],
                    "policy": ["definition": [["releng": 1]], "method": "LOCAL"],
                ],
                server: 1
            )
            #expect(again.status == 200)
            let events = try await world.call("GET", "/p/events").body["events"]?.array ?? []
            #expect(events.count { $0["kind"] == "created" } == 1)
            #expect(try await world.call("GET", "/").body["steps"]?.array?.count == 1)
        }
    }

    @Test func `3: many who create the same step at once create one`() async throws {
        try await SignoffWorld.with(servers: 2) { world in
            try await withThrowingTaskGroup(of: Int.self) { group in
                for number in 0..<16 {
                    group.addTask { try await world.call("PUT", "/p", Self.body, server: number % 2).status }
                }
                for try await status in group { #expect(status == 200) }
            }
            #expect(try await world.pool.query("select 1 from shipit_signoff.steps").count == 1)
            #expect(try await world.pool.query("select 1 from shipit_signoff.events where kind = 'created'").count == 1)
        }
    }

    @Test func `4: another definition under the same name is a conflict that changes nothing`() async throws {
        try await SignoffWorld.with { world in
            try await world.call("PUT", "/p", Self.body)
            let before = try await world.call("GET", "/p/status")
            let other = try await world.call("PUT", "/p", ["policy": ["method": "local", "definition": ["x": 1]]])
            #expect(other.status == 409)
            #expect(other.code == "definition_differs")
            #expect(other.body["error_title"] == "Conflict")
            #expect(try await world.call("GET", "/p/status").body == before.body)
        }
    }

    @Test func `8: names that do not agree, are reserved or too long are refused`() async throws {
        try await SignoffWorld.with { world in
            var body = Self.body
            body["uid"] = "q"
            try await world.call("GET", "/")
            #expect(try await world.call("PUT", "/p", body).code == "uid_mismatch")
            for uid in ["ticktock", "__x", "-a", String(repeating: "a", count: 81), "a%20b", "a%2Fb"] {
                #expect(try await world.call("PUT", "/\(uid)", Self.body).status == 400, "\(uid)")
            }
            #expect(try await world.call("PUT", "/\(String(repeating: "a", count: 80))", Self.body).status == 200)
        }
    }

    @Test func `24: under the old path a step that goes on is deleted without force where that is wished`() async throws
    {
        for isWished in [false, true] {
            try await SignoffWorld.with(deletesAll: isWished) { (world) async throws in
                #expect(try await world.call("PUT", "/step/p", Self.body).status == 200)
                #expect(try await world.call("DELETE", "/p").status == 409)
                #expect(try await world.call("DELETE", "/step/p").status == (isWished ? 200 : 409))
                #expect(try await world.call("GET", "/p").status == (isWished ? 404 : 200))
            }
        }
    }

    @Test func `24: a step that goes on is deleted by force alone, and its name is free then`() async throws {
        try await SignoffWorld.with { world in
            try await world.call("PUT", "/p", Self.body)
            #expect(try await world.call("DELETE", "/p").status == 409)
            #expect(try await world.call("DELETE", "/p?force=true").status == 200)
            #expect(try await world.call("GET", "/p/status").status == 404)
            #expect(try await world.call("DELETE", "/p").status == 404)
            #expect(try await world.call("PUT", "/p", Self.body).status == 200)
            #expect(try await world.call("GET", "/p/status").body["state"] == "running")
            let rows = try await world.pool.query("select incarnation from shipit_signoff.steps order by id")
            #expect(try rows.map { try $0.int("incarnation") } == [1, 2])
        }
    }

    @Test func `23: cancelling twice is cancelling once; what has ended is not cancelled`() async throws {
        try await SignoffWorld.with { world in
            try await world.call("PUT", "/p", Self.body)
            let first = try await world.call("POST", "/p/cancel", ["reason": "no longer needed"])
            #expect(first.body["state"] == "cancelled")
            #expect(first.body["message"] == "no longer needed")
            #expect(try await world.call("POST", "/p/cancel").status == 200)
            try await world.create("q", ["releng": 1])
            _ = try await world.sign("q", as: try world.bearer("releng1"))
            #expect(try await world.call("POST", "/q/cancel").code == "step_closed")
        }
    }

    @Test(arguments: [1, 2])
    func `33: a long poll ends with the change, here and through another process`(servers: Int) async throws {
        try await SignoffWorld.with(servers: servers) { world in
            try await world.create("p", ["releng": 1])
            let status = try await world.call("GET", "/p/status")
            let tag = status.headers["ETag"] ?? ""
            let same = try await world.call("GET", "/p/status", headers: ["If-None-Match": tag])
            #expect(same.status == 304)
            #expect(same.headers["ETag"] == tag)
            let begun = ContinuousClock.now
            async let waiting = world.call(
                "GET",
                "/p/status?wait=60",
                headers: ["If-None-Match": tag],
                server: servers - 1
            )
            try await Task.sleep(for: .milliseconds(200))
            #expect(try await world.sign("p", as: try world.bearer("releng1")).status == 200)
            let answer = try await waiting
            #expect(answer.status == 200)
            #expect(answer.body["state"] == "completed")
            #expect(ContinuousClock.now - begun < .seconds(40))
            let newTag = answer.headers["ETag"] ?? ""
            let quiet = try await world.call("GET", "/p/status?wait=1", headers: ["If-None-Match": newTag])
            #expect(quiet.status == 304)
        }
    }

    @Test func `34: a feed that is taken up again misses nothing and repeats nothing`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("p", ["releng": 2])
            try await world.sign("p", as: try world.bearer("releng1"))
            async let feed = world.curl.send(
                HTTPRequest(
                    url: world.urls[0] + "/p/events",
                    headers: [
                        "Accept": "text/event-stream", "Last-Event-ID": "2", "Authorization": StepServers.client,
                    ],
                    timeout: .seconds(60)
                )
            )
            try await Task.sleep(for: .milliseconds(100))
            try await world.sign("p", as: try world.bearer("releng2"))
            let text = String(decoding: try await feed.body, as: UTF8.self)
            let ids = text.split(separator: "\n").filter { $0.hasPrefix("id: ") }.compactMap { Int($0.dropFirst(4)) }
            #expect(ids == [3, 4, 5])
            #expect(text.contains("event: end"))
        }
    }

    @Test func `35: an audit that somebody changed says where`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("p", ["releng": 2])
            try await world.sign("p", as: try world.bearer("releng1"))
            try await world.sign("p", as: try world.bearer("releng2"))
            let fine = try await world.call("GET", "/p/events?verify=true").body
            #expect(fine == ["verified": true, "broken_at": nil])
            await #expect(throws: PostgresError.self) {
                try await world.pool.execute("update shipit_signoff.events set actor = 'nobody' where sequence = 3")
            }
            await #expect(throws: PostgresError.self) {
                try await world.pool.execute("delete from shipit_signoff.events where sequence = 3")
            }
            try await world.pool.pipeline([
                "alter table shipit_signoff.events disable trigger events_are_append_only",
                "update shipit_signoff.events set actor = 'nobody' where sequence = 3",
                "alter table shipit_signoff.events enable trigger events_are_append_only",
            ])
            let broken = try await world.call("GET", "/p/events?verify=true").body
            #expect(broken == ["verified": false, "broken_at": 3])
        }
    }

    @Test func `35: an audit that grows while it is verified is whole, and one that was cut off is not`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("p", ["releng": 2])
            // Named by address, a signer may claim any group, also one that no database stores as it is.
            try await world.create("q", ["releng1@example.com": 1])
            #expect(try await world.sign("q", "rel\u{0}eng", as: try world.bearer("releng1")).status == 200)
            #expect(try await world.call("GET", "/q/events?verify=true").body["verified"] == true)
            let before = try #require(try await world.store.find("p"))
            try await world.sign("p", as: try world.bearer("releng1"))
            #expect(try await world.store.brokenLink(of: before) == nil)
            let now = try #require(try await world.store.find("p"))
            let events = try await world.store.events(of: now.id, limit: 10).map { (event: $0, hash: $0.hash) }
            func broken(_ end: (sequence: Int, hash: [UInt8])?, _ count: Int) async throws -> Int? {
                try await EventChain.brokenLink(reaching: end) { after in Array(events.prefix(count).dropFirst(after)) }
            }
            #expect(events.count == 3)
            #expect(try await broken((2, events[1].hash), 3) == nil)
            #expect(try await broken((3, events[2].hash), 2) == 3)
            #expect(try await broken((2, events[2].hash), 3) == 2)
            #expect(try await broken(nil, 3) == nil)
        }
    }

    @Test func `36: pages show each step that was there once, whatever is created meanwhile`() async throws {
        try await SignoffWorld.with { world in
            try await world.pool.execute(
                """
                insert into shipit_signoff.steps (uid, incarnation, definition, definition_sha256, state, created_by,
                    created, updated, last_hash)
                select 'old-' || n, 1, '{}', '', 'running', 'c', now() - interval '1 hour' + (n / 10) * interval '1 second',
                    now(), '' from generate_series(1, 1000) n
                """
            )
            var seen: [String] = []
            var token = ""
            for page in 0..<100 {
                try await world.create("new-\(page)", ["releng": 1])
                let answer = try await world.call("GET", "/?limit=100\(token)").body
                seen += answer["steps"]?.array?.compactMap { $0["uid"]?.string } ?? []
                guard let next = answer["continuationToken"]?.string else { break }
                token = "&continuationToken=\(next)"
            }
            let old = seen.filter { $0.hasPrefix("old-") }
            #expect(old.count == 1000)
            #expect(Set(old).count == 1000)
            for moment in [JSONValue(Int.min), JSONValue(Int.max), JSONValue(-1), "x"] {
                let token = Continuation.encode([moment, 0])
                #expect(try await world.call("GET", "/?continuationToken=\(token)").status == 400, "\(moment)")
            }
            let beyond = Continuation.encode([JSONValue(Int.max)])
            let events = try await world.call("GET", "/new-0/events?continuationToken=\(beyond)")
            #expect(events.body == ["events": []])
            let bad = try await world.call("GET", "/?limit=100&continuationToken=xx")
            #expect(bad.status == 400)
            #expect(try await world.call("GET", "/?limit=501").status == 400)
        }
    }

    @Test func `38: nobody changes anything without the right to, and rights may be for one step alone`() async throws {
        try await SignoffWorld.with { world in
            let nobody = try await world.call("PUT", "/p", Self.body, as: nil)
            #expect(nobody.status == 401)
            let other = "c project:releng:services/shipit_signoff/create/q"
            #expect(try await world.call("PUT", "/p", Self.body, as: other).status == 403)
            let own = "c project:releng:services/shipit_signoff/create/p"
            #expect(try await world.call("PUT", "/p", Self.body, as: own).status == 200)
            #expect(try await world.call("DELETE", "/p", as: own).status == 403)
            #expect(try await world.call("GET", "/p/status", as: nil).status == 401)
            #expect(try await world.call("GET", "/p/status", as: own).status == 403)
            #expect(try await world.call("GET", "/p/status", as: try world.bearer("anybody", [])).status == 200)
            #expect(try await world.call("POST", "/p/cancel", as: try world.bearer("anybody")).status == 401)
            #expect(try await world.call("GET", "/p/status", as: "Hawk x").status == 401)
        }
    }

    @Test func `38: where everybody may read, what was deleted is still for administrators`() async throws {
        try await SignoffWorld.with(isPublic: true) { world in
            try await world.create("p", ["releng": 1])
            for caller in [nil, try world.bearer("anybody", []), "c project:x"] {
                #expect(try await world.call("GET", "/p/status", as: caller).status == 200)
                #expect(try await world.call("GET", "/p/events?deleted=true", as: caller).status == 403)
            }
            #expect(try await world.call("GET", "/p/status", as: "Hawk x").status == 401)
            #expect(try await world.call("DELETE", "/p?force=true").status == 200)
            #expect(try await world.call("GET", "/p/events?deleted=true").status == 200)
            #expect(try await world.call("PUT", "/p", Self.body, as: nil).status == 401)
        }
    }

    @Test func `steps are found by state, status, beginning and pipeline, under both addresses`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("a-1", ["releng": 1])
            try await world.create("a-2", ["releng": 1])
            _ = try await world.sign("a-1", as: try world.bearer("releng1"))
            try await world.call("PUT", "/step/b", Self.body, headers: ["X-Shipit-Pipeline": "p1"])
            func found(_ query: String) async throws -> [String] {
                try await world.call("GET", "/?\(query)").body["steps"]?.array?.compactMap { $0["uid"]?.string } ?? []
            }
            #expect(try await found("status=success") == ["a-1"])
            #expect(try await found("status=success&status=in_progress") == ["b", "a-2", "a-1"])
            #expect(try await found("state=running,failed") == ["b", "a-2"])
            #expect(try await found("uid_prefix=a-") == ["a-2", "a-1"])
            #expect(try await found("pipeline=p1") == ["b"])
            #expect(try await world.call("GET", "/?status=done").status == 400)
            #expect(try await world.call("GET", "/?colour=red").status == 400)
            #expect(try await world.call("GET", "/?label=product:fire%00fox").code == "bad_value")
            let legacy = try await world.call("GET", "/step").body.array ?? []
            #expect(legacy.compactMap { $0["uid"]?.string } == ["b", "a-2"])
            #expect(try await world.call("GET", "/step/b/status").body["state"] == "running")
            #expect(try await world.call("GET", "/step/b").body["parameters"] == ["a": 1, "b": [1, 2.5]])
        }
    }

    @Test func `a change for an older version is refused, and a repeated request gets its first answer`() async throws {
        try await SignoffWorld.with { world in
            try await world.create("p", ["releng": 2])
            try await world.sign("p", as: try world.bearer("releng1"))
            let stale = try await world.call("POST", "/p/cancel", headers: ["If-Match": "\"1\""])
            #expect(stale.status == 412)
            let key = ["Idempotency-Key": "k1"]
            let first = try await world.call("POST", "/p/cancel", ["reason": "x"], headers: key)
            #expect(first.body["state"] == "cancelled")
            let again = try await world.call("POST", "/p/cancel", ["reason": "x"], headers: key)
            #expect(again.status == 200)
            #expect(again.headers["Idempotency-Replayed"] == "true")
            #expect(again.body["version"] == first.body["version"])
            let other = try await world.call("POST", "/p/cancel", ["reason": "y"], headers: key)
            #expect(other.status == 422)
        }
    }

    @Test func `bodies that are not what they should be are refused as problems`() async throws {
        try await SignoffWorld.with { world in
            func put(_ text: String, type: String = "application/json") async throws -> (Int, JSONValue) {
                let response = try await world.curl.send(
                    HTTPRequest(
                        method: "PUT",
                        url: world.urls[0] + "/p",
                        headers: ["Authorization": StepServers.client, "Content-Type": type],
                        body: .bytes(Array(text.utf8))
                    )
                )
                return (response.status, (try? response.json()) ?? .null)
            }
            #expect(try await put("{").0 == 400)
            #expect(try await put("[]").0 == 400)
            let twice = try await put(#"{"policy": {"a": 1, "\u0061": 2}}"#)
            #expect(twice.0 == 400)
            #expect(twice.1["code"] == "duplicate_key")
            #expect(try await put(#"{"policy": {}}"#, type: "text/plain").0 == 415)
            #expect(try await put(#"{"colour": "red"}"#).1["code"] == "unknown_member")
            #expect(try await put(String(repeating: " ", count: 2 << 20)).0 == 413)
            for depth in ["99999999999", "-1", "deep"] {
                let answer = try await world.call("PUT", "/p", Self.body, headers: ["X-Shipit-Depth": depth])
                #expect(answer.status == 400, "\(depth)")
            }
        }
    }
}
