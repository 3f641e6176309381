// SPDX-License-Identifier: MPL-2.0

import Core
@testable import HooksKit
import JSON
import Logging
import Postgres
import Pulse
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(8)))
struct ListenerTests {
    @Test func `H70, H71: a matching message fires once, however many bindings it matches, another one does not`()
        async throws
    {
        try await ListenerWorld.with { world in
            try await world.create("h", [world.binding("a.*"), world.binding("#.b")])
            try await world.publish(#"{"n":1}"#, "a.b")
            try await world.publish(#"{"n":2}"#, "c.d")
            try await world.publish(#"{"n":3}"#, "a.c")
            #expect(Set(try await world.tasks(2)) == [["n": 1], ["n": 3]])
            #expect(try await world.hooks.history().allSatisfy { $0["firedBy"] == "pulseMessage" })
        }
    }

    @Test func `H72: what the default schema refuses is dropped, counted once and gone from the queue`() async throws {
        try await ListenerWorld.with(listeners: 0) { world in
            let request = HooksWorld.request(["payload": [:]], ["bindings": [world.binding("#")]])
            try await world.listening {
                _ = try await world.hooks.call("PUT", "/hooks/g/h", request)
                try await world.inStep()
                try await world.publish(#"{"n":1}"#)
                try await eventually(within: .seconds(120), "it is counted") {
                    try await world.status()["listener"]?["messages"]?["rejected"] == 1
                }
                #expect(try await world.hooks.call("GET", "/hooks/g/h/last-fires").status == 404)
                try await world.publish("{}")
                #expect(try await world.tasks(1).count == 1)
            }
            // Whatever a listener had not acknowledged when it left is in its queue again.
            #expect(try await world.waiting("h") == 0)
            // Another listener finds nothing to count once more.
            try await world.listening {
                try await world.publish("{}")
                #expect(try await world.tasks(2).count == 2)
            }
            #expect(try await world.status()["listener"]?["messages"]?["rejected"] == 1)
            #expect(try await world.hooks.history().count == 2)
            #expect(try await world.waiting("h") == 0)
        }
    }

    @Test func `H73: of many refused messages the first and each hundredth are logged`() async throws {
        let lines = Mutex<[String]>([])
        let handler = LineLogHandler(service: "tests", level: .notice) { line in lines.withLock { $0.append(line) } }
        try await HooksWorld.with(logger: Logger(label: "tests") { _ in handler }) {
            (world: HooksWorld) async throws -> Void in
            try await world.create([:], ["triggerSchema": ["type": "object", "required": ["n"]]])
            for start in stride(from: 0, to: 250, by: 50) {
                let messages = (start..<start + 50).map { number in
                    PulseDelivery(exchange: "e", routingKey: "k", body: Array(#"{"m":\#(number)}"#.utf8))
                }
                try await world.intake.accept(messages, for: HookName(group: "g", hook: "h"), queue: "q")
            }
            let status = try await world.call("GET", "/hooks/g/h/status").body
            #expect(status["listener"] == nil)
        }
        let discarded = lines.withLock { $0.filter { $0.contains("hook-pulse-message-discarded") } }
        #expect(discarded.count == 3)
        for (line, count) in zip(discarded, ["1", "100", "200"]) {
            #expect(line.contains("\"discardedCount\":\"\(count)\"") || line.contains("\"discardedCount\":\(count)"))
        }
    }

    @Test func `H74: a binding to a missing exchange is told in the status, retried, and hinders no other one`()
        async throws
    {
        try await ListenerWorld.with { world in
            let later = world.exchange + "-later"
            try await world.create("h", [world.binding("a", exchange: later), world.binding("b")])
            try await world.publish(#"{"n":1}"#, "b")
            #expect(try await world.tasks(1) == [["n": 1]])
            let bindings = try await world.status()["listener"]?["bindings"]?.array ?? []
            let broken = bindings.first { $0["exchange"]?.string == later }
            #expect(broken?["state"] == "broken")
            #expect(broken?["reason"]?.string?.contains("404") == true)
            #expect(broken?["nextRetry"]?.string != nil)
            #expect(bindings.first { $0["exchange"]?.string == world.exchange }?["state"] == "bound")

            try await world.pulse.declareExchange(later)
            try await world.hooks.pool.execute("update hooks.queues set retry_at = now()")
            try await eventually(within: .seconds(120), "the binding is made") {
                try await world.status()["listener"]?["bindings"]?.array?.allSatisfy { $0["state"] == "bound" } == true
            }
            try await world.pulse.publish(
                PulseMessage(exchange: later, routingKey: "a", body: Array(#"{"n":2}"#.utf8))
            )
            #expect(Set(try await world.tasks(2)) == [["n": 1], ["n": 2]])
            try await world.pulse.deleteExchange(later)
        }
    }

    @Test func `H75, H85: the bindings of the last change hold, the old ones do not`() async throws {
        try await ListenerWorld.with { world in
            try await world.create("h", [world.binding("old")])
            for number in 0..<5 { try await world.update("h", [world.binding("between\(number)")]) }
            try await world.update("h", [world.binding("new")])
            try await world.inStep()
            try await world.publish("{}", "old")
            for number in 0..<5 { try await world.publish("{}", "between\(number)") }
            try await world.publish(#"{"n":1}"#, "new")
            #expect(try await world.tasks(1) == [["n": 1]])
            let row = try await world.hooks.pool.query("select bindings from hooks.queues").first
            #expect(try row?.json("bindings") == [["exchange": JSONValue(world.exchange), "routingKeyPattern": "new"]])
        }
    }

    @Test func `H76: without bindings there is no queue, and neither after deletion`() async throws {
        try await ListenerWorld.with { world in
            try await world.create("h", [world.binding("#")])
            try await world.create("i", [world.binding("#")])
            let queues = [try await world.queue("h"), try await world.queue("i")]
            try await world.update("h", [])
            _ = try await world.hooks.call("DELETE", "/hooks/g/i")
            try await world.inStep()
            try await world.publish("{}")
            for queue in queues {
                // A queue that is there refuses to be declared with other properties.
                let count = try await world.pulse.declareQueue(PulseQueue(queue, durable: true, kind: .classic))
                #expect(count == 0)
                try await world.pulse.deleteQueue(queue)
            }
            #expect(world.hooks.queue.tasks.isEmpty)
        }
    }

    @Test func `H77: a queue deleted in the broker comes back with its bindings`() async throws {
        try await ListenerWorld.with { world in
            try await world.create("h", [world.binding("#")])
            let queue = try await world.queue()
            try await world.publish(#"{"n":1}"#)
            _ = try await world.tasks(1)
            try await world.pulse.deleteQueue(queue)
            // Whoever publishes before the queue is there again reaches nobody.
            try await eventually(within: .seconds(120), "messages fire again") {
                try await world.publish(#"{"n":2}"#)
                return world.hooks.queue.tasks.count > 1
            }
        }
    }

    @Test func `H78: a broker that lost queues and bindings gets them again from the next listener`() async throws {
        try await ListenerWorld.with { world in
            try await world.create("h", [world.binding("#")])
            try await world.create("i", [world.binding("#")])
        }
        try await ListenerWorld.with(listeners: 0) { world in
            try await world.listening {
                try await world.create("h", [world.binding("#")])
                try await world.create("i", [world.binding("#")])
            }
            let (lost, unbound) = (try await world.queue("h"), try await world.queue("i"))
            try await world.pulse.deleteQueue(lost)
            try await world.pulse.unbind(queue: unbound, exchange: world.exchange, routingKey: "#")
            try await world.listening {
                try await world.publish(#"{"n":1}"#)
                #expect(try await world.tasks(2).count == 2)
            }
        }
    }

    @Test func `H79: a message fires by the definition of its delivery, not of its publication`() async throws {
        try await ListenerWorld.with(listeners: 0) { world in
            try await world.listening { try await world.create("h", [world.binding("#")]) }
            try await world.publish("{}")
            let changed = world.request([world.binding("#")], template: ["payload": ["new": true]])
            _ = try await world.hooks.call("POST", "/hooks/g/h", changed)
            try await world.listening {
                let tasks = try await world.tasks(1)
                #expect(tasks == [["new": true]])
            }
        }
    }

    @Test
    func `H81: a message that is no JSON becomes a dead letter, and the following ones fire, as 85 of ShipIt demands`()
        async throws
    {
        try await ListenerWorld.with { world in
            try await world.create("h", [world.binding("#")])
            try await world.publish("this is no JSON")
            try await world.publish(#"{"n":1}"#)
            #expect(try await world.tasks(1) == [["n": 1]])
            let letters = try await world.hooks.call("GET", "/hooks/g/h/dead-letters").body["deadLetters"]?.array ?? []
            #expect(letters.count == 1)
            #expect(letters.first?["reason"] == "poison")
            #expect(letters.first?["body"] == "this is no JSON")
            #expect(try await world.status()["listener"]?["messages"]?["dead"] == 1)
        }
    }

    @Test func `H82: what came while no listener ran fires, all of it, when one runs again`() async throws {
        try await ListenerWorld.with(listeners: 0) { world in
            try await world.listening { try await world.create("h", [world.binding("#")]) }
            for number in 0..<60 { try await world.publish(#"{"n":\#(number)}"#) }
            try await world.listening {
                let tasks = try await world.tasks(60)
                #expect(Set(tasks).count == 60)
            }
        }
    }

    @Test func `H82: a bounded queue makes dead letters of its oldest messages, and they can be replayed`() async throws
    {
        let options = HookQueueOptions(maxLength: 50)
        try await ListenerWorld.with(listeners: 0, options: options) { world in
            try await world.listening(options: options) { try await world.create("h", [world.binding("#")]) }
            for number in 0..<60 { try await world.publish(#"{"n":\#(number)}"#) }
            try await world.listening(options: options) {
                #expect(try await world.tasks(50).count == 50)
                try await eventually(within: .seconds(120), "the others are dead letters") {
                    try await world.status()["listener"]?["messages"]?["dead"] == 10
                }
                let first = try await world.hooks.call("GET", "/hooks/g/h/dead-letters?limit=4").body
                #expect(first["deadLetters"]?.array?.count == 4)
                let token = first["continuationToken"]?.string ?? ""
                let rest = try await world.hooks.call("GET", "/hooks/g/h/dead-letters?continuationToken=\(token)").body
                let letters = (first["deadLetters"]?.array ?? []) + (rest["deadLetters"]?.array ?? [])
                #expect(letters.count == 10)
                #expect(letters.allSatisfy { $0["reason"] == "overflow" })
                for letter in letters {
                    let path = "/hooks/g/h/dead-letters/\(letter["letterId"]?.string ?? "")/replay"
                    let answer = try await world.hooks.call("POST", path)
                    #expect(answer.status == 200)
                    let again = try await world.hooks.call("POST", path)
                    #expect(again.body["taskId"] == answer.body["taskId"])
                }
                #expect(Set(try await world.tasks(60)).count == 60)
            }
        }
    }

    @Test func `H83: a message that matches by a CC key fires once`() async throws {
        try await ListenerWorld.with { world in
            try await world.create("h", [world.binding("route.x.#")])
            try await world.publish(#"{"n":1}"#, "primary", cc: ["route.x.y.z", "route.x.w"])
            try await world.publish(#"{"n":2}"#, "primary", cc: ["route.y"])
            #expect(try await world.tasks(1) == [["n": 1]])
        }
    }

    @Test func `H84: a queue with other properties keeps its messages and serves, and other hooks are unaffected`()
        async throws
    {
        try await ListenerWorld.with { world in
            let queue = "queue/\(world.pulse.namespace)/g/h"
            try await world.pulse.declareQueue(PulseQueue(queue, kind: .classic))
            try await world.pulse.bind(queue: queue, exchange: world.exchange, routingKey: "#")
            try await world.publish(#"{"n":1}"#)
            try await world.create("h", [world.binding("#")])
            try await world.create("i", [world.binding("only")])
            try await world.publish(#"{"n":2}"#)
            try await world.publish(#"{"n":3}"#, "only")
            let tasks = try await world.tasks(4)
            #expect(tasks.map { $0["n"]?.int ?? 0 }.sorted() == [1, 2, 3, 3])
        }
    }

    @Test func `H86: a hook whose name is longer than a queue's may be listens all the same`() async throws {
        try await ListenerWorld.with { world in
            let name = String(repeating: "n", count: 900)
            try await world.create(name, [world.binding("#")])
            #expect(try await world.queue(name).utf8.count <= 255)
            try await world.publish(#"{"n":1}"#)
            #expect(try await world.tasks(1) == [["n": 1]])
        }
    }

    @Test func `filters decide on the body, and what they decline is counted and kept`() async throws {
        try await ListenerWorld.with { world in
            let filter = "payload.branch == 'main' && routingKey == 'a.b'"
            try await world.create("h", [world.binding("a.#", filter: filter), world.binding("always")])
            try await world.publish(#"{"branch":"main"}"#, "a.b")
            try await world.publish(#"{"branch":"other"}"#, "a.b")
            try await world.publish(#"{"branch":"main"}"#, "a.c")
            try await world.publish(#"{"no":"branch"}"#, "a.b")
            try await world.publish(#"{"branch":"any"}"#, "always")
            try await eventually(within: .seconds(120), "all were looked at") {
                let messages = try await world.status()["listener"]?["messages"]
                return messages?["declined"] == 2 && messages?["rejected"] == 1
            }
            #expect(Set(try await world.tasks(2)) == [["branch": "main"], ["branch": "any"]])
            let kept = try await world.hooks.call("GET", "/hooks/g/h/unfired-messages").body["messages"]?.array ?? []
            #expect(kept.count == 3)
            #expect(kept.filter { $0["kind"] == "declined" }.count == 2)
            #expect(kept.first { $0["kind"] == "rejected" }?["reason"]?.string?.contains("branch") == true)
        }
    }

    @Test func `a filter that cannot be read is refused when the hook is made and when it is changed`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let bad: JSONObject = [
                "bindings": [["exchange": "e", "routingKeyPattern": "#", "filter": "payload.x == ("]]
            ]
            let refused = try await world.create([:], bad)
            #expect(refused.status == 400)
            #expect(refused.body["message"]?.string?.contains("SyntaxError") == true)
            #expect(try await world.create().status == 200)
            let changed = try await world.call("POST", "/hooks/g/h", HooksWorld.request([:], bad))
            #expect(changed.status == 400)
        }
    }

    @Test func `only the last messages that fired nothing are kept, while all are counted`() async throws {
        try await ListenerWorld.with { world in
            try await world.create("h", [world.binding("#", filter: "false")])
            for number in 0..<50 { try await world.publish(#"{"n":\#(number)}"#) }
            try await eventually(within: .seconds(120), "all are counted") {
                try await world.status()["listener"]?["messages"]?["declined"] == 50
            }
            let kept = try await world.hooks.call("GET", "/hooks/g/h/unfired-messages").body["messages"]?.array ?? []
            let bodies = Set(kept.compactMap { $0["body"]?.string })
            #expect(bodies == Set((30..<50).map { #"{"n":\#($0)}"# }))
        }
    }

    @Test(arguments: [nil, ""])
    func `breaking connections lose no message and double none`(id: String?) async throws {
        try await ListenerWorld.with(listeners: 0) { world in
            let relay = try Relay(to: world.pulse.configuration.host, world.pulse.configuration.port)
            try await world.listening(through: relay) {
                try await world.create("h", [world.binding("#")])
                let bodies = (0..<600).map { Array(#"{"n":\#($0)}"#.utf8) }
                try await world.pulse.publish(
                    bodies.map { PulseMessage(exchange: world.exchange, routingKey: "k", body: $0, messageID: id) }
                )
                for target in [100, 250, 400] {
                    try await eventually(within: .seconds(120), "\(target) fires") {
                        world.hooks.queue.tasks.count >= target
                    }
                    relay.cut()
                }
                let tasks = try await world.tasks(600, within: .seconds(120))
                #expect(tasks.count == 600)
                #expect(Set(tasks).count == 600)
            }
        }
    }

    @Test func `three listeners share the hooks, and the rest go on when one leaves`() async throws {
        try await ListenerWorld.with(listeners: 3) { world in
            for number in 0..<12 { try await world.create("h\(number)", [world.binding("k\(number)")]) }
            try await world.listening {
                for number in 0..<12 { try await world.publish("{}", "k\(number)") }
                #expect(try await world.tasks(12).count == 12)
            }
            for number in 0..<12 { try await world.publish("{}", "k\(number)") }
            #expect(try await world.tasks(24).count == 24)
        }
    }

    @Test func `a listener whose connection is closed for good ends with the reason, and its process with it`()
        async throws
    {
        try await ListenerWorld.with(listeners: 0) { world in
            let connection = PulseConnection(world.pulse.configuration, name: "closed for good")
            let listener = world.listener(on: connection)
            let ending = Task { try await listener.run() }
            try await eventually(within: .seconds(120), "the listener is ready") {
                do { try await listener.checkReady() } catch { return false }
                return true
            }
            await connection.shutDown()
            let error = await #expect(throws: PulseError.self) { try await ending.value }
            #expect(error?.code == .closed)
        }
    }
}

struct ListenerShareTests {
    private let names = (0..<300).map { HookName(group: "g", hook: "h\($0)") }

    @Test func `every hook falls to two listeners, evenly`() {
        let all: Set<String> = ["a", "b", "c", "d", "e"]
        let counts = all.map { one in names.filter { ListenerShare(listener: one, all: all).includes($0) }.count }
        #expect(counts.reduce(0, +) == 600)
        #expect(counts.allSatisfy { (80...160).contains($0) })
    }

    @Test func `when a listener dies only its hooks move`() {
        let before: Set<String> = ["a", "b", "c", "d"]
        for name in names where !ListenerShare(listener: "d", all: before).includes(name) {
            for one in ["a", "b", "c"] {
                let stays = ListenerShare(listener: one, all: ["a", "b", "c"]).includes(name)
                #expect(ListenerShare(listener: one, all: before).includes(name) == stays)
            }
        }
    }
}

struct TopicPatternTests {
    @Test(arguments: [
        ("#", "", true), ("#", "a.b", true), ("*", "", false), ("*", "a", true), ("*", "a.b", false),
        ("a.*.c", "a.b.c", true), ("a.*.c", "a.c", false), ("a.#", "a", true), ("a.#.c", "a.c", true),
        ("a.#.c", "a.b.b.c", true), ("#.c", "a.b", false), ("#.#", "", true), ("a", "a.b", false), ("a.b", "a", false),
        ("*.#", "", false), ("*.#", "a.b", true), ("route.x.#", "route.x", true), ("", "", true), ("", "a", false),
    ])
    func `patterns match keys as they do in the broker`(pattern: String, key: String, matches: Bool) {
        #expect(TopicPattern.matches(pattern, key) == matches)
    }
}
