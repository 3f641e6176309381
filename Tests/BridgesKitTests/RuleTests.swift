// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import Testing

@testable import BridgesKit

struct RoutingWordTests {
    @Test(arguments: [
        (["push", "o", "r", "x"], "push.o.r.x"),
        (["push", "o", "my.dotted.repo", ""], "push.o.my%dotted%repo._"),
        (["a b", "*", "#", "é"], "a_b._._._"),
        (["merge_request", "group/sub-group", "p", "open"], "merge_request.group/sub-group.p.open"),
        ([""], "_"),
    ])
    func `words keep their number whatever is in them`(_ words: [String], _ key: String) {
        #expect(RoutingWords.key(words) == key)
    }

    @Test func `a key is never too long, and never loses a word`() {
        for lengths in [[300, 1, 1, 1], [200, 200, 200, 200], [100, 100, 54, 0], [1000, 0, 0, 1000]] {
            let key = RoutingWords.key(lengths.map { String(repeating: "x", count: $0) })
            #expect(key.utf8.count <= 255)
            #expect(key.split(separator: ".", omittingEmptySubsequences: false).count == 4)
        }
    }
}

struct TokenBucketTests {
    @Test func `a burst passes, then the rate`() {
        var bucket = TokenBucket(rate: 2, burst: 3, at: .zero)
        for _ in 0..<3 { #expect(bucket.take(at: .zero) == nil) }
        #expect(bucket.take(at: .zero) == .milliseconds(500))
        #expect(bucket.delay(at: .milliseconds(250)) == .milliseconds(250))
        #expect(bucket.take(at: .milliseconds(500)) == nil)
        #expect(bucket.take(at: .milliseconds(500)) != nil)
        // An hour of quiet makes no more than one burst.
        for _ in 0..<3 { #expect(bucket.take(at: .seconds(3600)) == nil) }
        #expect(bucket.take(at: .seconds(3600)) != nil)
    }

    @Test func `asking takes nothing, and a clock that goes back gives nothing`() {
        var bucket = TokenBucket(rate: 1, burst: 1, at: .seconds(10))
        for _ in 0..<5 { #expect(bucket.delay(at: .seconds(10)) == nil) }
        #expect(bucket.take(at: .seconds(10)) == nil)
        #expect(bucket.take(at: .seconds(1)) == .seconds(1))
    }
}

struct FormTests {
    @Test func `forms are decoded, and refused when they are not well encoded`() throws {
        let fields = try #require(FormBody.fields(Array("payload=%7B%22a%22%3A1%7D&b=c+d%2Be&e".utf8)))
        #expect(fields.map(\.name) == ["payload", "b", "e"])
        #expect(fields.map(\.value) == [#"{"a":1}"#, "c d+e", ""])
        for text in ["a=%", "a=%2", "a=%zz", "a=%ff", "%=1"] {
            #expect(FormBody.fields(Array(text.utf8)) == nil, "\(text)")
        }
        #expect(FormBody.fields([])?.isEmpty == true)
    }

    @Test func `a form without payload becomes an object`() throws {
        let fields = try #require(FormBody.fields(Array("host=a&state=up&host=b".utf8)))
        #expect(FormBody.object(fields) == ["host": ["a", "b"], "state": "up"])
    }
}

struct PointerTests {
    @Test func `pointers lead where RFC 6901 says`() {
        let value: JSONValue = ["a/b": [10, ["m~n": "x"]], "": 5, "a": nil]
        #expect(value.value(at: "") == value)
        #expect(value.value(at: "/a~1b/0") == 10)
        #expect(value.value(at: "/a~1b/1/m~0n") == "x")
        #expect(value.value(at: "/") == 5)
        #expect(value.value(at: "/a") == .null)
        for pointer in ["/b", "/a~1b/2", "/a~1b/01", "/a~1b/-1", "/a/x", "x"] {
            #expect(value.value(at: pointer) == nil, "\(pointer)")
        }
    }
}

struct EventTests {
    private func event(
        _ kind: WebhookSource.Kind,
        _ headers: [String: String],
        _ payload: JSONValue
    ) throws -> WebhookEvent {
        let fields = Dictionary(uniqueKeysWithValues: headers.map { ($0.key.lowercased(), $0.value) })
        return try WebhookEvent(
            SignatureTests.source(kind, "s"),
            header: { fields[$0.lowercased()] },
            payload: payload,
            body: payload.bytes()
        )
    }

    private func key(
        _ kind: WebhookSource.Kind,
        _ headers: [String: String],
        _ payload: JSONValue
    ) throws -> String {
        RoutingWords.key(try event(kind, headers, payload).words)
    }

    private func gitHub(_ event: String) -> [String: String] {
        ["X-GitHub-Event": event, "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"]
    }

    @Test func `GitHub's events are routed by event, owner, repository and action`() throws {
        let repository: JSONValue = ["name": "hello.world", "owner": ["login": "octo-org"]]
        let kind = WebhookSource.Kind.github(acceptsSHA1: false)
        #expect(
            try key(kind, gitHub("pull_request"), ["action": "opened", "repository": repository])
                == "pull_request.octo-org.hello%world.opened"
        )
        let pushed: JSONValue = ["repository": ["name": "r", "owner": ["name": "o"]], "ref": "refs/heads/main"]
        #expect(try key(kind, gitHub("push"), pushed) == "push.o.r._")
        #expect(
            try key(kind, gitHub("organization"), ["action": "member_added", "organization": ["login": "o"]])
                == "organization.o._.member_added"
        )
        #expect(try event(kind, gitHub("ping"), ["zen": "z"]).isPing)
        #expect(throws: WebhookEvent.Problem.self) { try event(kind, ["X-GitHub-Event": "push"], [:]) }
        #expect(throws: WebhookEvent.Problem.self) { try event(kind, ["X-GitHub-Delivery": "1"], [:]) }
        for id in ["", "a b", "é", String(repeating: "x", count: 201)] {
            #expect(throws: WebhookEvent.Problem.self) {
                try event(kind, ["X-GitHub-Event": "push", "X-GitHub-Delivery": id], [:])
            }
        }
    }

    @Test func `values of unexpected types are no trouble`() throws {
        let kind = WebhookSource.Kind.github(acceptsSHA1: false)
        for payload: JSONValue in [
            [], [1], ["repository": 1], ["repository": ["owner": [], "name": ["x"]]], ["action": nil],
            ["organization": "o", "installation": ["id": "x"]],
        ] {
            #expect(try key(kind, gitHub("push"), payload) == "push._._._")
        }
    }

    @Test func `Bitbucket's events keep their key in two words`() throws {
        let cloud = ["X-Event-Key": "pullrequest:comment_created", "X-Request-UUID": "u-1"]
        #expect(
            try key(.bitbucket, cloud, ["repository": ["full_name": "team/repo.x"]])
                == "pullrequest.team.repo%x.comment_created"
        )
        let server = ["X-Event-Key": "pr:reviewer:approved", "X-Request-Id": "id-1"]
        let payload: JSONValue = [
            "pullRequest": ["toRef": ["repository": ["slug": "repo", "project": ["key": "PRJ"]]]]
        ]
        #expect(try key(.bitbucket, server, payload) == "pr.PRJ.repo.reviewer_approved")
        #expect(try event(.bitbucket, ["X-Event-Key": "diagnostics:ping"], ["test": true]).isPing)
        #expect(throws: WebhookEvent.Problem.self) { try event(.bitbucket, ["X-Event-Key": "repo:push"], [:]) }
    }

    @Test func `GitLab's events are named after their header, and identified as well as the server allows`() throws {
        let payload: JSONValue = [
            "object_kind": "merge_request", "project": ["path_with_namespace": "group/sub/app"],
            "object_attributes": ["action": "open"],
        ]
        let header = ["X-Gitlab-Event": "Merge Request Hook", "X-Gitlab-Event-UUID": "e-1"]
        #expect(try key(.gitlab, header, payload) == "merge_request.group/sub.app.open")
        let new = header.merging(["Idempotency-Key": "k-1"]) { $1 }
        #expect(try event(.gitlab, new, payload).deliveryID == "k-1")
        // Events that follow from one another share an id; they differ in what they say.
        let first = try event(.gitlab, header, payload).deliveryID
        #expect(try event(.gitlab, header, payload).deliveryID == first)
        #expect(try event(.gitlab, header, ["other": true]).deliveryID != first)
        #expect(
            try key(.gitlab, ["X-Gitlab-Event": "System Hook"], ["event_name": "project_create"])
                == "project_create._._._"
        )
    }

    @Test func `Standard Webhooks are routed by their type`() throws {
        let header = ["webhook-id": "msg_1"]
        #expect(try key(.standard, header, ["type": "invoice.paid"]) == "invoice.paid")
        #expect(try key(.standard, header, ["x": 1]) == "event")
        #expect(try key(.standard, header, ["type": "..."]) == "_")
    }

    @Test func `other senders are read as their description says`() throws {
        var form = SignatureTests.description(.sha256)
        #expect(try key(.hmac(form), [:], [:]) == "event")
        #expect(try event(.hmac(form), [:], [:]).deliveryID != (try event(.hmac(form), [:], [:]).deliveryID))
        form.event = .pointer("/kind")
        form.identity = .value(.header("X-Id"))
        form.routingKey = [.literal("nagios"), .header("X-Host"), .pointer("/service"), .pointer("/none")]
        let parsed = try event(
            .hmac(form),
            ["X-Id": "7", "X-Host": "db1.example"],
            ["kind": "alert", "service": 42]
        )
        #expect(RoutingWords.key(parsed.words) == "nagios.db1%example.42._")
        #expect(parsed.event == "alert")
        #expect(parsed.deliveryID == "7")
        #expect(throws: WebhookEvent.Problem.self) { try event(.hmac(form), [:], [:]) }
        form.identity = .body
        #expect(try event(.hmac(form), [:], ["a": 1]).deliveryID == (try event(.hmac(form), [:], ["a": 1]).deliveryID))
        #expect(try event(.hmac(form), [:], ["a": 1]).deliveryID != (try event(.hmac(form), [:], ["a": 2]).deliveryID))
    }

    @Test func `a message holds the body byte for byte beside what is known about it`() throws {
        let body = Array(#"{"action" : "opened", "n": 1.50, "t": "\u0000"}"#.utf8)
        var parsed = try event(.github(acceptsSHA1: false), gitHub("issues"), ["action": "opened"])
        parsed.owner = "my.org"
        let delivery = Delivery(parsed, source: "github", body: body, received: Timestamp(milliseconds: 0))
        let message = delivery.message(exchange: "e")
        let text = String(decoding: message.body, as: UTF8.self)
        #expect(text.hasSuffix(#","body":{"action" : "opened", "n": 1.50, "t": "\u0000"}}"#))
        let value = try JSONValue(parsing: message.body)
        #expect(value["organization"] == "my%org")
        #expect(value["eventId"] == "72d3162e-cc78-11e3-81ab-4c9367dc0958")
        #expect(value["replay"] == nil)
        #expect(try JSONValue(parsing: delivery.message(exchange: "e", replay: 2).body)["replay"] == 2)
    }
}

struct ClockMinuteTests {
    @Test(arguments: [
        ("2026-11-21T15:45:59.999Z", "time.2026.11.21.saturday.15.45"),
        ("2024-02-29T00:00:00.000Z", "time.2024.02.29.thursday.00.00"),
        ("1970-01-01T00:00:30.000Z", "time.1970.01.01.thursday.00.00"),
        ("1969-12-31T23:59:59.000Z", "time.1969.12.31.wednesday.23.59"),
        ("2000-01-01T12:00:00.000Z", "time.2000.01.01.saturday.12.00"),
    ])
    func `a minute is routed by its date, weekday and time`(_ instant: String, _ key: String) throws {
        let minute = ClockMinute(containing: try #require(Timestamp(instant)))
        #expect(minute.routingKey == key)
        #expect(minute.start.milliseconds % 60_000 == 0)
    }

    @Test func `a minute tells its parts as numbers`() throws {
        let minute = ClockMinute(containing: try #require(Timestamp("2026-03-04T05:06:07Z")))
        let payload = minute.payload(published: try #require(Timestamp("2026-03-04T05:06:07.890Z")))
        let expected: JSONValue = [
            "version": 1, "source": "clock", "eventId": "time.2026-03-04T05:06:00.000Z",
            "time": "2026-03-04T05:06:00.000Z", "year": 2026, "month": 3, "day": 4, "weekday": "wednesday",
            "hour": 5, "minute": 6, "published": "2026-03-04T05:06:07.890Z",
        ]
        #expect(payload == expected)
    }
}

struct PushlogTests {
    private func pushlog(_ last: JSONValue, _ ids: [Int]) throws -> Pushlog {
        let pushes = ids.map {
            (key: String($0), value: ["changesets": ["abc"], "date": 1.5, "user": "u"] as JSONValue)
        }
        return try Pushlog(["lastpushid": last, "pushes": .object(JSONObject(pushes))])
    }

    @Test func `pushes are read in the order of their numbers`() throws {
        let log = try pushlog(11, [10, 9, 11])
        #expect(log.pushes.map(\.id) == [9, 10, 11])
        #expect(log.pushes[0].date.milliseconds == 1500)
        #expect(try pushlog(.null, []).lastPushID == 0)
    }

    @Test func `answers of another form are refused`() {
        for answer: JSONValue in [
            [], "no", [:], ["lastpushid": 1], ["lastpushid": "x", "pushes": [:]], ["lastpushid": -1, "pushes": [:]],
            ["lastpushid": 1, "pushes": ["x": ["date": 1, "changesets": []]]],
            ["lastpushid": 1, "pushes": ["1": []]], ["lastpushid": 1, "pushes": ["1": ["date": 1]]],
        ] {
            #expect(throws: Pushlog.Problem.self) { try Pushlog(answer) }
        }
    }

    @Test func `the first look begins at the tip, later ones go on from the cursor`() throws {
        #expect(PushlogStep.decide(try pushlog(7, [6, 7]), cursor: nil, behind: 0) == .begin(at: 7))
        #expect(PushlogStep.decide(try pushlog(7, []), cursor: 7, behind: 0) == .nothing)
        let log = try pushlog(9, [7, 8, 9])
        #expect(PushlogStep.decide(log, cursor: 7, behind: 2) == .announce(Array(log.pushes.dropFirst()), cursor: 9))
        // Numbers may be missing, even all of a batch.
        #expect(PushlogStep.decide(try pushlog(250, []), cursor: 7, behind: 0) == .announce([], cursor: 107))
    }

    @Test func `a smaller newest push must be seen thrice before it counts as a new repository`() throws {
        #expect(PushlogStep.decide(try pushlog(3, []), cursor: 7, behind: 0) == .behind(times: 1))
        #expect(PushlogStep.decide(try pushlog(3, []), cursor: 7, behind: 1) == .behind(times: 2))
        #expect(PushlogStep.decide(try pushlog(3, []), cursor: 7, behind: 2) == .reset(to: 3))
    }
}
