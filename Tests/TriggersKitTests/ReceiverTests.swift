// SPDX-License-Identifier: MPL-2.0

import APIServer
import BridgesKit
import Core
import HTTPClient
import JSON
import Pulse
import Taskcluster
import TestSupport
import Testing

@testable import TriggersKit

@Suite(.timeLimit(.minutes(5)))
struct ReceiverTests {
    private static let secret = "a secret of the tests"
    private static let query = "diff=2&repo=PHID-REPO-x&revision=9&target=PHID-HMBT-y"

    private func serve(
        _ triggers: [Trigger] = [TriggersWorld.diffs, TriggersWorld.commits],
        _ body: @Sendable @escaping (TriggersWorld, String) async throws -> Void
    ) async throws {
        try await TriggersWorld.with { world in
            try await world.serve(triggers, secrets: [Secret("another one"), Secret(Self.secret)]) { url in
                try await body(world, url)
            }
        }
    }

    private func announce(
        _ world: TriggersWorld,
        _ url: String,
        _ query: String = query,
        authorization: String? = "Bearer \(secret)"
    ) async throws -> (status: Int, text: String) {
        var request = HTTPRequest(method: "POST", url: "\(url)/codereview/new?\(query)")
        if let authorization { request.headers["Authorization"] = authorization }
        let response = try await world.curl.send(request)
        return (response.status, String(decoding: response.body, as: UTF8.self))
    }

    @Test func `a build that Harbormaster announces fires once, whether or not the diff is found as well`() async throws
    {
        try await serve { world, url in
            try await world.makeHook()
            world.conduit.add(1...1)
            try await world.look(world.poller())
            world.conduit.add(2...3)
            for _ in 0..<2 {
                let answer = try await announce(world, url)
                #expect(answer == (200, "Build queued"))
            }
            #expect(try await world.look(world.poller()) == 1)
            let late = try await announce(world, url, "diff=3&repo=PHID-REPO-x&revision=9&target=PHID-HMBT-y")
            #expect(late == (200, "Build queued"))
            try await world.settle(world.worker())
            let ids = world.queue.payloads.compactMap { $0["ANALYSIS_ID"]?.string }
            #expect(ids.sorted() == ["PHID-DIFF-2", "PHID-DIFF-3"])
        }
    }

    @Test func `a caller shows a secret in a header, and an address that holds one is no use`() async throws {
        try await serve { world, url in
            let basic = "Basic " + Base64.encoded(Array("anybody:\(Self.secret)".utf8))
            for good in [basic, "bearer \(Self.secret)", "Bearer another one"] {
                #expect(try await announce(world, url, authorization: good).status == 200)
            }
            let wrong = [
                nil, "", "Bearer", "Bearer wrong", "Basic !!!", "Basic " + Base64.encoded(Array(Self.secret.utf8)),
            ]
            for authorization in wrong {
                let answer = try await announce(world, url, authorization: authorization)
                #expect(answer.status == 401)
                #expect(!answer.text.contains(Self.secret))
            }
            let inAddress = Self.query + "&secret=\(Self.secret.replacing(" ", with: "+"))"
            #expect(try await announce(world, url, inAddress, authorization: nil).status == 401)
        }
    }

    @Test func `an announcement that names no build is refused`() async throws {
        try await serve { world, url in
            for query in ["", "diff=2", "diff=a&repo=PHID-REPO-x&revision=9&target=PHID-HMBT-y", Self.query + "%zz=%"] {
                let answer = try await announce(world, url, query.replacing("PHID-HMBT-y%zz", with: "%zz"))
                #expect(answer.status == 400)
                #expect(answer.text.hasPrefix("Invalid build: "))
            }
            #expect(try await world.open() == 0)
            let elsewhere = HTTPRequest(method: "POST", url: "\(url)/codereview/newer?\(Self.query)")
            #expect(try await world.curl.send(elsewhere).status == 404)
        }
    }

    // MARK: - For people

    @Test func `runs are listed in pages, by trigger, state and trouble, and can be tried again`() async throws {
        try await serve { world, url in
            world.conduit.add(1...1)
            try await world.look(world.poller())
            world.conduit.add(2...6)
            world.conduit.add(7...7, isVisible: false)
            try await world.look(world.poller())
            // There is no hook, so all but the last fail.
            let worker = world.worker(visibility: .init(tries: 1, pause: .zero))
            try await worker.work()
            let first = try await world.call(url, "GET", "/runs?limit=4").body
            #expect(first["runs"]?.array?.count == 4)
            let token = try #require(first["continuationToken"]?.string)
            let rest = try await world.call(url, "GET", "/runs?limit=4&continuationToken=\(token)").body
            #expect(rest["runs"]?.array?.count == 2)
            #expect(rest["continuationToken"] == nil)
            #expect(try await world.call(url, "GET", "/runs?stuck=true").body["runs"]?.array?.count == 5)
            let skipped = try await world.call(url, "GET", "/runs?state=skipped").body["runs"]?.array ?? []
            #expect(skipped.count == 1)
            #expect(
                try await world.call(url, "GET", "/runs?trigger=code-coverage").body["runs"]?.array?.isEmpty == true
            )
            #expect(try await world.call(url, "GET", "/runs", scopes: "triggers:retry").status == 403)
            #expect(try await world.call(url, "GET", "/triggers").body["triggers"]?.array?.count == 2)

            try await world.makeHook()
            world.conduit.show(7)
            let id = skipped.first?["runId"]?.string ?? "?"
            #expect(try await world.call(url, "POST", "/runs/\(id)/retry", scopes: "triggers:list").status == 403)
            #expect(try await world.call(url, "POST", "/runs/\(id)/retry").body["state"]?.string == "waiting")
            #expect(try await world.call(url, "POST", "/runs/999999/retry").status == 404)
            try await world.settle(worker)
            #expect(world.queue.tasks.count == 6)
            #expect(try await world.call(url, "POST", "/runs/\(id)/retry").body["state"]?.string == "fired")
            try await world.settle(worker)
            #expect(world.queue.tasks.count == 6)
        }
    }

    @Test func `a dead letter is read again once its trigger can`() async throws {
        let message: JSONValue = [
            "payload": [
                "repository_url": "https://review.example/gecko",
                "commits": [["rev": "aa", "review_request_id": 1, "diffset_revision": 2]],
            ]
        ]
        try await serve { world, url in
            // Dead when it came, readable now.
            let good = PulseDelivery(exchange: "exchange/mozreview/", routingKey: "k", body: message.bytes())
            let bad = PulseDelivery(exchange: "exchange/mozreview/", routingKey: "k", body: [1, 2, 3])
            for delivery in [good, bad] {
                for _ in 0..<3 {
                    _ = try await world.letters.note(delivery, of: TriggersWorld.commits.name, error: "no")
                }
            }
            let list = try await world.call(url, "GET", "/dead-letters").body["deadLetters"]?.array ?? []
            #expect(list.count == 2)
            let ids = list.compactMap { $0["letterId"]?.string }
            #expect(try await world.call(url, "POST", "/dead-letters/\(ids[0])/replay").status == 400)
            for expected in [1, 0] {
                let answer = try await world.call(url, "POST", "/dead-letters/\(ids[1])/replay")
                #expect(answer.body["runs"]?.int == expected)
            }
            #expect(try await world.call(url, "POST", "/dead-letters/999999/replay").status == 404)
            #expect(try await world.states() == ["aa/1/2": "waiting"])
        }
    }

    @Test func `85: a poison message is a dead letter and the next message is handled`() async throws {
        try await TriggersWorld.with { world in
            try await Broker.lend { pulse, exchange, queue in
                let trigger = TriggersWorld.coverage
                let subscription = PulseSubscription(
                    queue: PulseQueue(queue, kind: .classic),
                    bindings: [PulseBinding(exchange: exchange, routingKeyPattern: "*.*.gecko-level-3._")],
                    // As the original: whatever is not acknowledged keeps everything else away.
                    prefetch: 1
                )
                let intake = world.intake(trigger, subscription, pulse: pulse)
                try await pulse.declareQueue(PulseQueue(queue, kind: .classic))
                try await pulse.bind(queue: queue, exchange: exchange, routingKey: "*.*.gecko-level-3._")
                let ids = ["fUcGNXd7Q5S8LTPwG8cmFw", "aUcGNXd7Q5S8LTPwG8cmFA"]
                let bodies = [Array("poison".utf8)] + ids.map { JSONValue.object(["taskGroupId": .string($0)]).bytes() }
                for body in bodies {
                    let key = "primary.x.gecko-level-3._"
                    try await pulse.publish(PulseMessage(exchange: exchange, routingKey: key, body: body))
                }
                try await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask { try await intake.run() }
                    try await eventually("both groups are written down") { try await world.open() == 2 }
                    try await eventually("the letter is written") {
                        try await world.letters.list(trigger: trigger.name, before: nil, limit: 9).count == 1
                    }
                    group.cancelAll()
                }
                let letter = try await world.letters.list(trigger: trigger.name, before: nil, limit: 9).first
                #expect(letter?.delivery.body == Array("poison".utf8))
                #expect(letter?.error.contains("not JSON") == true)
            }
        }
    }
}
