// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Notices
import Postgres
import Schedules
import StepKit
import Testing
import TestSupport

@testable import PipelineKit

/// Nobody is told so much that they stop reading.
@Suite(.timeLimit(.minutes(15)))
struct NoticeLimitTests {
    private static func add(
        _ count: Int,
        from first: Int = 0,
        _ channel: Notice.Channel,
        _ target: String,
        _ store: NoticeStore,
        _ pool: PostgresPool
    ) async throws {
        for number in first..<(first + count) {
            let notice = Notice(
                key: "\(target) \(number)",
                channel: channel,
                target: target,
                subject: "thing \(number)",
                text: "text \(number)",
                document: ["number": JSONValue(number)]
            )
            let isNew = try await pool.transaction { try await store.add(notice, on: $0) }
            #expect(isNew)
        }
    }

    @Test func `what is too much for one person comes in one piece, programs are told each thing`() async throws {
        let listeners = NoticeTests.Listeners()
        try await listeners.serve { url in
            try await PipelineWorld.with { world in
                let limit = NoticeStore.Limit(count: 3, window: .seconds(3600))
                let store = NoticeStore(schema: "shipit_pipeline", pool: world.pool, limit: limit)
                let courier = NoticeTests.courier(world, url, store: store)
                try await Self.add(3, .email, "a@example.com", store, world.pool)
                try await courier.deliverDue()
                #expect(listeners.all("/email").count == 3)
                try await Self.add(5, from: 3, .email, "a@example.com", store, world.pool)
                try await Self.add(2, .email, "b@example.com", store, world.pool)
                try await Self.add(5, .webhook, "\(url)/hook", store, world.pool)
                for _ in 0..<3 { try await courier.deliverDue() }
                let others = listeners.all("/email").filter { $0.json["address"] == "b@example.com" }
                #expect(others.count == 2)
                #expect(listeners.all("/email").count == 5)
                #expect(listeners.all("/hook").count == 5)
                // An hour later there is room again.
                try await world.pool.execute(
                    """
                    update shipit_pipeline.notices set sent = sent - interval '2 hours',
                        next_try = next_try - interval '2 hours'
                    """
                )
                try await courier.deliverDue()
                try await courier.deliverDue()
                let mails = listeners.all("/email")
                #expect(mails.count == 6)
                #expect(mails.last?.json["subject"]?.string?.hasPrefix("5 things: ") == true)
                let text = mails.last?.json["content"]?.string ?? ""
                #expect((3..<8).allSatisfy { text.contains("text \($0)") })
            }
        }
    }

    @Test func `what is too much for one message is counted in it`() async throws {
        let listeners = NoticeTests.Listeners()
        try await listeners.serve { url in
            try await PipelineWorld.with { world in
                let limit = NoticeStore.Limit(count: 3, window: .seconds(3600))
                let store = NoticeStore(schema: "shipit_pipeline", pool: world.pool, limit: limit)
                try await world.pool.execute(
                    """
                    insert into shipit_pipeline.notices (dedup_key, channel, target, subject, body, document, state)
                    select 'key ' || n, 'email', 'a@example.com', 'thing ' || n, repeat('x', 1000), '{}', 'pending'
                    from generate_series(1, 300) n
                    """
                )
                let courier = NoticeTests.courier(world, url, store: store)
                while try await courier.deliverDue() > 0 {}
                let mail = try #require(listeners.all("/email").first?.json)
                #expect(listeners.all("/email").count == 1)
                #expect(mail["subject"]?.string?.hasPrefix("300 things: ") == true)
                // The notify service takes no more in one mail.
                let text = mail["content"]?.string ?? ""
                #expect(text.utf8.count <= 102_400)
                #expect(text.hasSuffix("and 271 more"))
            }
        }
    }

    @Test func `a digest tells everything of its time at once`() async throws {
        let listeners = NoticeTests.Listeners()
        try await listeners.serve { url in
            try await PipelineWorld.with(webhooks: ["\(url)/hook"]) { world in
                var rule = NoticeTests.rule("matrix", "!room:example.com", ["step_failed", "pipeline_failed"])
                rule["digest_s"] = 600
                world.lab.set("a", Lab.Behaviour(result: "failed"))
                try await world.create("p", [world.step("a")], ["notify": [rule]])
                try await world.reach("p", "failed")
                let courier = NoticeTests.courier(world, url)
                try await courier.deliverDue()
                #expect(listeners.all("/matrix").isEmpty)
                try await world.pool.execute(
                    "update shipit_pipeline.notices set next_try = next_try - interval '10 minutes'"
                )
                try await courier.deliverDue()
                try await courier.deliverDue()
                let told = listeners.all("/matrix")
                #expect(told.count == 1)
                let text = told.first?.json["body"]?.string ?? ""
                #expect(text.contains("p: a: step failed") && text.contains("p: pipeline failed"))

                var wrong = NoticeTests.rule("webhook", "\(url)/hook", ["failed"])
                wrong["digest_s"] = 60
                let answer = try await world.call("PUT", "/q", world.definition([], ["notify": [wrong]]))
                #expect(answer.body["errors"]?[0]?["path"] == "notify[0].digest_s")
            }
        }
    }

    @Test func `a pipeline that nobody looks at, or whose looks fail, is told to be stuck once`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            let rule = NoticeTests.rule("email", "drivers@example.com", ["pipeline_stuck"])
            for name in ["p", "q"] { try await world.create(name, [world.step(name)], ["notify": [rule]]) }
            let watch = StuckWatch(world.service)
            for _ in 0..<2 { try await watch.tell() }
            #expect(try await !world.kinds("p").contains("stuck"))
            try await world.pool.execute("update shipit_pipeline.steps set check_failures = 3 where uid = 'q'")
            clock.advance(by: .seconds(100))
            try await watch.tell()
            // After an outage everybody gets a chance first.
            #expect(try await !world.kinds("p").contains("stuck"))
            for _ in 0..<3 { try await watch.tell() }
            for (name, reason) in [("p", "nobody has looked"), ("q", "has failed 3 times")] {
                let events = try await world.events(name).filter { $0["kind"] == "stuck" }
                #expect(events.count == 1)
                #expect(events.first?["data"]?["reason"]?.string?.contains(reason) == true)
            }
            let notices = try await world.pool.query("select dedup_key from shipit_pipeline.notices")
            #expect(notices.count == 2)
            // Somebody comes after all, and nothing is lost.
            try await world.advance(10)
            #expect(try await world.state("p") == "completed")
            #expect(try await world.call("GET", "/p/events?verify=true").body["verified"] == true)
        }
    }
}
