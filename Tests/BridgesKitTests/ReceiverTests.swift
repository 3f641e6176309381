// SPDX-License-Identifier: MPL-2.0

import Glibc
import HTTPClient
import JSON
import Outbox
import Postgres
import Pulse
import TestSupport
import Testing

@testable import BridgesKit

@Suite(.timeLimit(.minutes(5)))
struct ReceiverTests {
    private static let opened: JSONValue = [
        "action": "opened", "repository": ["name": "app", "owner": ["login": "octo"]],
        "installation": ["id": 123_456], "number": 7,
    ]

    private func code(_ response: HTTPResponse) -> String? {
        (try? response.json())?["code"]?.string
    }

    // MARK: - Accepting

    @Test func `a signed delivery is stored when its sender hears of it, and published by the relay`() async throws {
        try await BridgesWorld.with { world in
            let answer = try await world.post(Self.opened, id: "d-1", event: "pull_request")
            #expect(answer.status == 202)
            #expect(try answer.json()["routingKey"] == "pull_request.octo.app.opened")
            #expect(try await world.count("deliveries") == 1)
            #expect(try await world.count("outbox") == 1)
            #expect(try await world.relay() == 1)
            let message = try #require(try await world.received(1).first)
            #expect(message.exchange == "exchange/\(world.namespace)/v1/github")
            #expect(message.routingKey == "pull_request.octo.app.opened")
            let payload = try message.json()
            #expect(payload["body"] == Self.opened)
            #expect(payload["event"] == "pull_request")
            #expect(payload["eventId"] == "d-1")
            #expect(payload["organization"] == "octo")
            #expect(payload["repository"] == "app")
            #expect(payload["action"] == "opened")
            #expect(payload["installationId"] == 123_456)
            #expect(message.messageID?.isEmpty == false)
        }
    }

    @Test func `a ping is answered and goes nowhere`() async throws {
        try await BridgesWorld.with { world in
            let answer = try await world.post(["zen": "Keep it simple", "hook_id": 1], id: "d-1", event: "ping")
            #expect(answer.status == 200)
            #expect(try await world.count("deliveries") == 0)
            let unsigned = try await world.post(
                Array("{}".utf8),
                id: "d",
                event: "ping",
                headers: ["X-Hub-Signature-256": ""]
            )
            #expect(unsigned.status == 403)
        }
    }

    @Test func `GitHub's form encoding is understood`() async throws {
        try await BridgesWorld.with { world in
            let body = Array("payload=%7B%22action%22%3A%22a+b%22%2C%22n%22%3A1.50%7D".utf8)
            let type = ["Content-Type": "application/x-www-form-urlencoded; charset=utf-8"]
            #expect(try await world.post(body, id: "d-1", headers: type).status == 202)
            try await world.relay()
            let message = try #require(try await world.received(1).first)
            #expect(String(decoding: message.body, as: UTF8.self).hasSuffix(#""body":{"action":"a b","n":1.50}}"#))
        }
    }

    @Test func `both the old and the new secret are good while they are replaced`() async throws {
        try await BridgesWorld.with { world in
            let body = Array("{}".utf8)
            for (index, secret) in [BridgesWorld.secret, "the next secret"].enumerated() {
                let header = ["X-Hub-Signature-256": BridgesWorld.signature(body, secret: secret)]
                let answer = try await world.post(body, id: "d-\(index)", headers: header)
                #expect(answer.status == 202)
            }
            let header = ["X-Hub-Signature-256": BridgesWorld.signature(body, secret: "an older secret")]
            let answer = try await world.post(body, id: "d-9", headers: header)
            #expect(answer.status == 403)
        }
    }

    // MARK: - Refusing

    @Test func `what is not right is refused with its own status and nothing is stored`() async throws {
        try await BridgesWorld.with([BridgesWorld.gitHub(bodyLimit: 1000)]) { world in
            let good = Array("{}".utf8)
            let unknown = try await world.post(good, id: "d", path: "/webhooks/gitlab")
            #expect(unknown.status == 404)
            #expect(code(unknown) == "ResourceNotFound")
            #expect(try await world.post(good, id: "d", path: "/webhooks/").status == 404)
            #expect(try await world.post(good, id: "d", path: "/webhooks/github/x").status == 404)
            let forged = try await world.post(good, id: "d", headers: ["X-Hub-Signature-256": "sha256=00"])
            #expect(forged.status == 403)
            #expect(code(forged) == "InvalidSignature")
            let text = String(decoding: forged.body, as: UTF8.self)
            #expect(!text.contains(BridgesWorld.secret))
            #expect(!text.contains(BridgesWorld.signature(good).dropFirst(7)))
            let old = ["X-Hub-Signature-256": "", "X-Hub-Signature": "sha1=00"]
            #expect(try await world.post(good, id: "d", headers: old).status == 403)
            for body in ["", "{", "1", "null", "\"x\"", "{\"a\":1}x", "\u{FEFF}{}"] {
                let answer = try await world.post(Array(body.utf8), id: "d")
                #expect(answer.status == 400, "\(body)")
                #expect(code(answer) == "MalformedPayload")
            }
            for type in ["text/plain", "", "application/jsonx", "multipart/form-data"] {
                #expect(try await world.post(good, id: "d", headers: ["Content-Type": type]).status == 400, "\(type)")
            }
            #expect(try await world.post(good, id: "d", headers: ["X-GitHub-Event": ""]).status == 400)
            #expect(try await world.post(good, id: "d", headers: ["X-GitHub-Delivery": ""]).status == 400)
            let long = Array("{\"a\":\"\(String(repeating: "x", count: 2000))\"}".utf8)
            let oversized = try await world.post(long, id: "d")
            #expect(oversized.status == 413)
            #expect(code(oversized) == "InputTooLarge")
            let chunked = try await world.post(long, id: "d", headers: ["Transfer-Encoding": "chunked"])
            #expect(chunked.status == 413)
            #expect(try await world.count("deliveries") == 0)
            // The connections survive all that, queries are ignored, a slash at the end is.
            #expect(try await world.post(good, id: "d", path: "/webhooks/github/?token=x").status == 202)
        }
    }

    @Test func `a source that sends too fast is told when to come back, and forgers use up nothing`() async throws {
        try await BridgesWorld.with([BridgesWorld.gitHub(rate: 0.01, burst: 2)]) { world in
            let body = Array("{}".utf8)
            for _ in 0..<5 {
                let forged = try await world.post(body, id: "f", headers: ["X-Hub-Signature-256": "sha256=00"])
                #expect(forged.status == 403)
            }
            #expect(try await world.post(body, id: "d-1").status == 202)
            #expect(try await world.post(body, id: "d-2").status == 202)
            let limited = try await world.post(body, id: "d-3")
            #expect(limited.status == 429)
            #expect(code(limited) == "TooManyRequests")
            let pause = try #require(limited.headers["Retry-After"].flatMap { Int($0) })
            #expect((1...100).contains(pause))
            #expect(try await world.count("deliveries") == 2)
        }
    }

    @Test func `a sender that stops in the middle is not waited for`() async throws {
        try await BridgesWorld.with(patience: .seconds(1)) { world in
            let port = try #require(world.urls[0].split(separator: ":").last.flatMap { UInt16($0) })
            let socket = try #require(Self.connect(port))
            defer { close(socket) }
            let head = "POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
            _ = Array(head.utf8).withUnsafeBytes {
                send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            var answer: [UInt8] = []
            try await eventually(within: .seconds(120)) {
                var bytes = [UInt8](repeating: 0, count: 4096)
                let count = recv(socket, &bytes, bytes.count, Int32(MSG_DONTWAIT))
                if count > 0 { answer += bytes[..<count] }
                return count == 0 || String(decoding: answer, as: UTF8.self).contains("did not arrive")
            }
        }
    }

    private static func connect(_ port: UInt16) -> Int32? {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        return result == 0 ? descriptor : nil
    }

    @Test func `a sender is asked to come back while the database is away`() async throws {
        try await BridgesWorld.with { world in
            world.pool.close()
            let answer = try await world.post(Self.opened, id: "d-1")
            #expect(answer.status == 503)
            #expect(answer.headers["Retry-After"] != nil)
            #expect(code(answer) == "ServiceUnavailable")
        }
    }

    @Test func `no signed body and no headers lead to an internal error`() async throws {
        try await BridgesWorld.with { world in
            var random = SystemRandomNumberGenerator()
            let pieces = [
                "{", "}", "[", "]", "\"", "\\u0000", "\\ud800", ":", ",", "null", "1e999", "-", "action", "repository",
                "owner", "payload=", "%7B", "%", "+", "&", "\u{0}", "é", "{\"repository\":{\"owner\":{\"login\":{}}}}",
            ]
            let types = ["application/json", "application/x-www-form-urlencoded", "text/plain"]
            for round in 0..<250 {
                var body: [UInt8] = []
                for _ in 0..<Int.random(in: 0...8, using: &random) {
                    if Bool.random(using: &random) {
                        body += Array(pieces[Int.random(in: 0..<pieces.count, using: &random)].utf8)
                    } else {
                        body.append(UInt8.random(in: 0...255, using: &random))
                    }
                }
                if round % 5 == 0 { body = Array("{\"x\":".utf8) + body + Array("}".utf8) }
                let headers = [
                    "Content-Type": types[round % types.count],
                    "X-GitHub-Event": round % 7 == 0 ? "é*#" : "e-\(round)",
                ]
                let answer = try await world.post(body, id: "fuzz-\(round)", headers: headers)
                #expect(answer.status < 500, "\(body) \(headers)")
            }
        }
    }

    // MARK: - Once

    @Test func `a delivery that comes again is one delivery, whatever process it comes to`() async throws {
        try await BridgesWorld.with(servers: 2) { world in
            let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
                for index in 0..<20 {
                    group.addTask { try await world.post(Self.opened, id: "d-1", server: index % 2).status }
                }
                return try await group.reduce(into: [Int: Int]()) { $0[$1, default: 0] += 1 }
            }
            #expect(statuses == [202: 1, 200: 19])
            let again = try await world.post(Self.opened, id: "d-1")
            #expect(try again.json()["duplicate"] == true)
            let other = try await world.post(["other": true], id: "d-1")
            #expect(other.status == 409)
            #expect(try await world.post(Self.opened, id: "d-2").status == 202)
            #expect(try await world.relay() == 2)
            #expect(try await world.received(2).count == 2)
        }
    }

    @Test func `relays that die between store and publish lose nothing and double nothing`() async throws {
        try await BridgesWorld.with { world in
            let total = 60
            try await withThrowingTaskGroup(of: Void.self) { group in
                for index in 0..<total {
                    group.addTask {
                        let answer = try await world.post(["n": JSONValue(index)], id: "d-\(index)")
                        #expect(answer.status == 202)
                    }
                }
                // Relays that are cut off wherever they are, each with a connection of its own.
                group.addTask {
                    for _ in 0..<8 {
                        let pulse = PulseConnection(world.pulse.configuration, name: "a relay that dies")
                        let relay = OutboxRelay(outbox: world.outbox, pool: world.pool, pulse: pulse)
                        let task = Task { try await relay.run() }
                        try await Task.sleep(for: .milliseconds(Int.random(in: 1...40)))
                        task.cancel()
                        await pulse.shutDown()
                        _ = await task.result
                    }
                }
                try await group.waitForAll()
            }
            try await world.relay()
            #expect(try await world.count("outbox") == 0)
            let deliveries = try await world.received(total)
            // The broker may hold a message twice that was confirmed but not yet crossed off; both copies have one id.
            let events = try Dictionary(grouping: deliveries) { try $0.json()["eventId"]?.string ?? "" }
            #expect(Set(events.keys) == Set((0..<total).map { "d-\($0)" }))
            for copies in events.values { #expect(Set(copies.map(\.messageID)).count == 1) }
        }
    }

    // MARK: - Afterwards

    @Test func `operators list deliveries, read them and send them again`() async throws {
        try await BridgesWorld.with { world in
            for index in 1...3 { _ = try await world.post(["n": JSONValue(index)], id: "d-\(index)") }
            #expect(try await world.relay() == 3)
            let first = try await world.call(
                "GET",
                "/deliveries/github?limit=2",
                scopes: "bridges:list-deliveries:github"
            )
            #expect(first.status == 200)
            #expect(first.body["deliveries"]?.array?.map { $0["deliveryId"]?.string } == ["d-3", "d-2"])
            let token = try #require(first.body["continuationToken"]?.string)
            let second = try await world.call("GET", "/deliveries/github?limit=2&continuationToken=\(token)")
            #expect(second.body["deliveries"]?.array?.map { $0["deliveryId"]?.string } == ["d-1"])
            #expect(second.body["continuationToken"] == nil)
            let refused = try await world.call("GET", "/deliveries/github", scopes: "bridges:list-deliveries:other")
            #expect(refused.status == 403)
            let one = try await world.call("GET", "/deliveries/github/d-2")
            #expect(one.body["message"]?["body"]?["n"] == 2)
            #expect(try await world.call("GET", "/deliveries/github/none").status == 404)

            let replay = try await world.call("POST", "/deliveries/github/d-2/replay")
            #expect(replay.body["replays"] == 1)
            #expect(try await world.call("POST", "/deliveries/github/none/replay").status == 404)
            let reader = "bridges:get-delivery:*"
            #expect(try await world.call("POST", "/deliveries/github/d-2/replay", scopes: reader).status == 403)
            #expect(try await world.relay() == 1)
            let messages = try await world.received(4)
            let last = try #require(messages.last).json()
            #expect(last["eventId"] == "d-2")
            #expect(last["replay"] == 1)
        }
    }

    @Test func `old deliveries are forgotten a bounded number at a time`() async throws {
        try await BridgesWorld.with { world in
            _ = try await world.post(Self.opened, id: "new")
            try await world.pool.execute(
                """
                insert into bridges.deliveries (source, delivery_id, event, routing_key, envelope, body, digest, received)
                select 'github', 'old-' || n, 'push', 'push', '{}', '{}', '', now() - interval '8 days'
                from generate_series(1, 1500) n
                """
            )
            #expect(try await world.store.sweep(retention: .seconds(7 * 86_400)) == 1000)
            #expect(try await world.store.sweep(retention: .seconds(7 * 86_400)) == 500)
            #expect(try await world.store.sweep(retention: .seconds(7 * 86_400)) == 0)
            #expect(try await world.count("deliveries") == 1)
        }
    }
}
