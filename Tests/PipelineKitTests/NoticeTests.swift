// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import Crypto
import HTTPClient
import JSON
import Logging
import Notices
import Postgres
import Schedules
import StepKit
import StepTestSupport
import Synchronization
import TaskclusterClient
import Testing
import TestSupport

@testable import PipelineKit

/// Who is told of what happens to pipelines: everybody once.
@Suite(.timeLimit(.minutes(15)))
struct NoticeTests {
    /// The notify service, and somebody who is told by webhooks.
    final class Listeners: Sendable {
        struct Call: Sendable {
            let path: String
            let body: [UInt8]
            let signature: String?
            let delivery: String?
            var json: JSONValue { (try? JSONValue(parsing: body)) ?? .null }
        }

        let calls = Mutex<[Call]>([])
        /// How many calls are refused first.
        let refusals = Mutex(0)

        func all(_ path: String) -> [Call] { calls.withLock { $0.filter { $0.path == path } } }

        func serve(_ body: @Sendable @escaping (String) async throws -> Void) async throws {
            func endpoint(_ path: String) -> Endpoint {
                Endpoint(.post, path, name: path, category: "Test", title: "Test", description: "") { request in
                    let isRefused = self.refusals.withLock { refusals in
                        guard path == "/hook", refusals > 0 else { return false }
                        refusals -= 1
                        return true
                    }
                    let call = Call(
                        path: path,
                        body: request.rawBody,
                        signature: request.header("x-shipit-signature"),
                        delivery: request.header("x-shipit-delivery")
                    )
                    self.calls.withLock { $0.append(call) }
                    return .json([:], status: isRefused ? 500 : 200)
                }
            }
            func api(_ service: String, _ mount: API.Mount, _ paths: [String]) -> API {
                API(
                    service: service,
                    title: "Listeners",
                    description: "Who is told.",
                    schemas: SchemaStore(directory: "/nowhere"),
                    endpoints: paths.map(endpoint),
                    mount: mount
                )
            }
            let server = HTTPServer(
                configuration: HTTPServerConfiguration(),
                name: "listeners",
                rootURL: nil,
                apis: [
                    api("notify", .versioned, ["/email", "/matrix", "/slack"]), api("listeners", .root, ["/hook"]),
                ],
                authenticator: nil,
                health: HealthRegistry()
            )
            try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask { try await withLogger(StepServers.quiet) { _ in try await server.run() } }
                defer { group.cancelAll() }
                try await body("http://127.0.0.1:\(await server.waitUntilListening())")
            }
        }
    }

    static func courier(
        _ world: PipelineWorld,
        _ url: String,
        secret: String? = "shared",
        store: NoticeStore? = nil
    ) -> NoticeCourier {
        let signing = secret.map {
            NoticeSender.Signing(secret: $0, signatureField: "X-Shipit-Signature", deliveryField: "X-Shipit-Delivery")
        }
        let client = TaskclusterClient(rootURL: url, credentials: { nil }, transport: world.curl)
        let sender = NoticeSender(client: client, transport: world.curl, signing: signing)
        return NoticeCourier(store: store ?? world.service.notices.queue, sender: sender)
    }

    static func rule(_ kind: String, _ target: String, _ events: [String]) -> JSONValue {
        ["on": JSONValue(events), "type": .string(kind), "target": .string(target)]
    }

    @Test func `everybody who asked is told once of each thing, by mail, chat, bus and signed webhook`() async throws {
        let listeners = Listeners()
        try await listeners.serve { url in
            try await PipelineWorld.with(webhooks: ["\(url)/hook"]) { world in
                world.lab.set("b", Lab.Behaviour(result: "failed"))
                let rules: [JSONValue] = [
                    Self.rule("email", "drivers@example.com", ["pipeline_failed", "step_failed"]),
                    Self.rule("matrix", "!room:example.com", ["started"]),
                    Self.rule("slack", "C0123", ["failed"]),
                    Self.rule("pulse", "dashboard", ["step_failed", "pipeline_failed"]),
                    Self.rule("webhook", "\(url)/hook", ["step_failed"]),
                ]
                try await world.create("p", [world.step("a"), world.step("b", ["a"])], ["notify": .array(rules)])
                try await world.reach("p", "failed")
                listeners.refusals.withLock { $0 = 1 }
                let courier = Self.courier(world, url)
                try await eventually("all are delivered") {
                    try await courier.deliverDue()
                    let left = try await world.pool.query(
                        "select count(*) as left from shipit_pipeline.notices where state = 'pending'"
                    )
                    return try left.first?.int("left") == 0
                }
                try await courier.deliverDue()
                let mails = listeners.all("/email")
                #expect(
                    mails.compactMap { $0.json["subject"]?.string }.sorted() == [
                        "p: b: step failed", "p: pipeline failed",
                    ]
                )
                #expect(mails.allSatisfy { $0.json["address"] == "drivers@example.com" })
                #expect(listeners.all("/matrix").map { $0.json["roomId"] } == ["!room:example.com"])
                #expect(listeners.all("/slack").map { $0.json["channelId"] } == ["C0123"])
                // Refused once, the webhook comes again under the same name.
                let hooks = listeners.all("/hook")
                #expect(hooks.count == 2)
                #expect(Set(hooks.map(\.delivery)).count == 1)
                let hook = try #require(hooks.last)
                let code = HMAC<SHA256>.authenticationCode(
                    for: hook.body,
                    using: SymmetricKey(data: Array("shared".utf8))
                )
                #expect(hook.signature == "sha256=\(Hexadecimal.encoded(code))")
                #expect(hook.json["event"] == "step_failed")
                #expect(hook.json["step"] == "b")
                #expect(hook.json["pipeline"] == "p")
                let messages = try await world.pool.query(
                    """
                    select routing_key, exchange from shipit_pipeline.outbox where exchange like '%notices' order by id
                    """
                )
                #expect(
                    try messages.map { try $0.string("routing_key") } == [
                        "primary.step_failed.p.dashboard", "primary.pipeline_failed.p.dashboard",
                    ]
                )
                #expect(try messages.first?.string("exchange") == "exchange/nowhere/v1/pipeline-notices")

                // A second failure is another thing.
                world.lab.set("b.r2", Lab.Behaviour(result: "failed"))
                #expect(try await world.call("POST", "/p/retry").status == 200)
                try await world.reach("p", "failed")
                try await eventually {
                    try await courier.deliverDue()
                    return listeners.all("/email").count == 4
                }
            }
        }
    }

    @Test func `whoever has to sign is told, reminded, and told of signatures`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            func answer(_ missing: String, _ signatures: String) -> String {
                #"{"state": "running", "info": {"missing": \#(missing), "signatures": \#(signatures)}}"#
            }
            let none = answer(#"[{"releng": 2}]"#, "[]")
            let one = answer(#"[{"releng": 1}]"#, #"[{"name": "a@b", "group": "releng", "created": "now"}]"#)
            let statuses = Array(repeating: none, count: 20) + Array(repeating: one, count: 200)
            world.lab.set("approve", Lab.Behaviour(result: nil, statuses: statuses))
            let words: [JSONValue] = ["signoff_needed", "signoff_reminder", "signed"]
            let rule: JSONValue = [
                "on": .array(words), "type": "email", "target": "releng@example.com", "every_s": 600,
            ]
            try await world.create("p", [world.step("approve")], ["notify": [rule]])
            try await world.advance(1500, every: .seconds(10))
            let keys = try await world.pool.query(
                "select dedup_key from shipit_pipeline.notices order by id"
            ).map { try $0.string("dedup_key") }
            #expect(keys.count { $0.contains("signoff_needed") } == 1)
            #expect(keys.count { $0.contains(".signed.") } == 1)
            #expect(keys.count { $0.contains("signoff_reminder") } == 2)
        }
    }

    @Test func `what a freeze holds back is told once, and rules that make no sense are refused`() async throws {
        let clock = TestClock(.now())
        try await PipelineWorld.with(clock: clock) { world in
            let end: Timestamp = clock.now() + .seconds(300)
            let freeze: JSONValue = [
                "reason": "holidays", "start": .string(clock.now().iso8601), "end": .string(end.iso8601),
            ]
            #expect(try await world.call("PUT", "/freezes/holidays", freeze).status == 200)
            let rule = Self.rule("slack", "C1", ["freeze_blocked", "completed"])
            try await world.create("p", [world.step("a")], ["notify": [rule]])
            try await world.advance(200, every: .seconds(5))
            let first = try await world.pool.query("select dedup_key from shipit_pipeline.notices")
            #expect(first.count == 1)
            try await world.advance(150, every: .seconds(5))
            #expect(try await world.state("p") == "completed")
            #expect(try await world.pool.query("select dedup_key from shipit_pipeline.notices").count == 2)

            let bad: [JSONValue] = [
                Self.rule("email", "nobody", ["failed"]), Self.rule("pigeon", "x", ["failed"]),
                Self.rule("slack", "C1", ["exploded"]), Self.rule("webhook", "http://elsewhere.example/", ["failed"]),
                ["type": "slack", "target": "C1"],
            ]
            let answer = try await world.call("PUT", "/q", world.definition([], ["notify": .array(bad)]))
            #expect(answer.status == 400)
            let paths = answer.body["errors"]?.array?.compactMap { $0["path"]?.string } ?? []
            #expect(
                Set(paths) == [
                    "notify[0].target", "notify[1].type", "notify[2].on", "notify[3].target", "notify[4].on",
                ]
            )
        }
    }
}
