// SPDX-License-Identifier: MPL-2.0

import HooksKit
import JSON
import Postgres
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(8)))
struct DefinitionTests {
    private func refused(
        _ world: HooksWorld,
        _ request: JSONValue,
        _ code: String,
        _ text: String
    ) async throws {
        let answer = try await world.call("PUT", "/hooks/g/h", request)
        #expect(answer.status == 400)
        #expect(answer.body["code"]?.string == code)
        #expect(answer.body["message"]?.string?.contains(text) == true, "\(answer.body)")
    }

    private func metadata(_ key: String, _ value: JSONValue?) -> JSONObject {
        var metadata: JSONObject = ["name": "n", "description": "d", "owner": "owner@example.com"]
        metadata[key] = value
        return ["metadata": .object(metadata)]
    }

    @Test func `H2: repeating a definition changes neither token nor next date nor history`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let minutely: JSONObject = ["schedule": ["0 0 0 1 1 *"]]
            try await world.create([:], minutely)
            let token = try await world.call("GET", "/hooks/g/h/token").body
            let status = try await world.call("GET", "/hooks/g/h/status").body
            try await world.create([:], minutely)
            #expect(try await world.call("GET", "/hooks/g/h/token").body == token)
            #expect(try await world.call("GET", "/hooks/g/h/status").body == status)
            let audits = try await world.pool.query("select action from hooks.audit_history")
            #expect(try audits.map { try $0.string("action") } == ["created"])
        }
    }

    @Test func `H4: the order of keys and spelled-out defaults make no difference`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            #expect(try await world.create(["payload": ["a": 1, "b": 2]]).status == 200)
            #expect(try await world.create(["payload": ["b": 2, "a": 1]]).status == 200)
            let defaults: JSONObject = [
                "schedule": [], "bindings": [],
                "triggerSchema": ["additionalProperties": false, "type": "object"],
                "metadata": ["owner": "owner@example.com", "description": "d", "name": "n", "emailOnError": true],
            ]
            #expect(try await world.create(["payload": ["a": 1, "b": 2]], defaults).status == 200)
            #expect(try await world.create(["payload": ["a": 1, "b": 3]]).status == 409)
        }
    }

    @Test func `H6, H7: names with slashes are found, listed and removed; repeated ids must agree`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let group = HooksWorld.request([:], ["hookGroupId": "x"])
            #expect(try await world.call("PUT", "/hooks/g/a", group).body["code"] == "InputError")
            let equal = HooksWorld.request([:], ["hookGroupId": "g", "hookId": "a/b/c"])
            #expect(try await world.call("PUT", "/hooks/g/a%2Fb%2Fc", equal).status == 200)
            #expect(try await world.call("GET", "/hooks/g").body["hooks"]?[0]?["hookId"] == "a/b/c")
            #expect(try await world.call("GET", "/hooks/g/a%2Fb%2Fc").body["hookId"] == "a/b/c")
            #expect(try await world.call("DELETE", "/hooks/g/a%2Fb%2Fc").body == [:])
            #expect(try await world.call("GET", "/hooks/g/a%2Fb%2Fc").status == 404)
        }
    }

    @Test func `H8: identifiers have an alphabet and at most a thousand characters`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let long = String(repeating: "x", count: 1000)
            for group in ["in%20valid", "a:b", "%C3%BC", long + "x"] {
                let answer = try await world.call("PUT", "/hooks/\(group)/h", HooksWorld.request())
                #expect(answer.status == 400)
                #expect(answer.body["code"] == "InvalidRequestArguments")
                let message = answer.body["message"]?.string ?? ""
                #expect(message.contains("hookGroupId"))
                #expect(message.contains("must match"))
            }
            #expect(try await world.call("PUT", "/hooks/\(long)/\(long)", HooksWorld.request()).status == 200)
            #expect(try await world.call("GET", "/hooks").body == ["groups": [JSONValue(long)]])
        }
    }

    @Test func `H10: scopes of one group do not reach another`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let scopes = "assume:hook-id:g/* hooks:modify-hook:g/*"
            #expect(try await world.call("PUT", "/hooks/g/x", HooksWorld.request(), scopes: scopes).status == 200)
            #expect(try await world.call("PUT", "/hooks/g2/x", HooksWorld.request(), scopes: scopes).status == 403)
        }
    }

    @Test func `H12: bindings are a list of different exchanges and patterns`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let binding: JSONValue = ["exchange": "e", "routingKeyPattern": "#"]
            let wrong: [(JSONValue, String)] = [
                ([["exchange": "e"]], "must have required property 'routingKeyPattern'"), (binding, "must be array"),
                ([binding, binding], "duplicate"), ([["exchange": "", "routingKeyPattern": "#"]], "fewer than 1"),
            ]
            for (bindings, text) in wrong {
                try await refused(
                    world,
                    HooksWorld.request([:], ["bindings": bindings]),
                    "InputValidationError",
                    text
                )
            }
        }
    }

    @Test func `H13: metadata has an owner with an address and bounded texts`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let wrong: [(String, JSONValue?, String)] = [
                ("owner", "not an email", "must match format"), ("owner", nil, "required property 'owner'"),
                ("description", JSONValue(String(repeating: "d", count: 32_769)), "more than 32768"),
                ("name", JSONValue(String(repeating: "n", count: 256)), "more than 255"),
            ]
            for (key, value, text) in wrong {
                try await refused(world, HooksWorld.request([:], metadata(key, value)), "InputValidationError", text)
            }
            let longest = metadata("description", JSONValue(String(repeating: "d", count: 32_768)))
            #expect(try await world.create([:], longest).status == 200)
        }
    }

    @Test func `H14: unknown members are refused beside the task and welcome in it`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let beside = HooksWorld.request([:], ["foo": 1])
            try await refused(world, beside, "InputValidationError", "must NOT have additional properties")
            #expect(try await world.create(["foo": ["bar": nil]]).body["task"] == ["foo": ["bar": nil]])
        }
    }

    @Test func `H15, H16: schedules are different patterns that come true some day`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let twice = HooksWorld.request([:], ["schedule": ["0 0 * * * *", "0 0 * * * *"]])
            try await refused(world, twice, "InputValidationError", "duplicate")
            for pattern in ["", "* * *", "0 0 0 * * * *"] {
                let request = HooksWorld.request([:], ["schedule": [JSONValue(pattern)]])
                try await refused(world, request, "InputError", pattern)
            }
            #expect(try await world.create([:], ["schedule": ["* * * * * *"]]).status == 200)
            let leap = HooksWorld.request([:], ["schedule": ["0 0 0 29 2 *"]])
            #expect(try await world.call("POST", "/hooks/g/h", leap).status == 200)
            let next = try await world.call("GET", "/hooks/g/h/status").body["nextScheduledDate"]?.string
            #expect(next?.contains("-02-29T00:00:00.000Z") == true)
        }
    }

    @Test func `H17: trigger schemas may name the drafts they are written in`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            for (index, draft) in ["04", "06", "07"].enumerated() {
                let schema: JSONValue = [
                    "$schema": JSONValue("http://json-schema.org/draft-\(draft)/schema#"), "type": "object",
                    "x-note": "an unknown keyword means nothing",
                ]
                let request = HooksWorld.request(["payload": [:]], ["triggerSchema": schema])
                #expect(try await world.call("PUT", "/hooks/g/h\(index)", request).status == 200)
                #expect(try await world.call("POST", "/hooks/g/h\(index)/trigger", ["any": 1]).status == 200)
            }
        }
    }

    @Test func `H18: a refused update leaves the hook as it was`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let before = try await world.create().body
            let denied = HooksWorld.request(
                ["other": 1],
                ["bindings": [["exchange": "exchange/taskcluster-queue/v1/task-created", "routingKeyPattern": "#"]]]
            )
            let answer = try await world.call("POST", "/hooks/g/h", denied)
            #expect(answer.status == 400)
            #expect(answer.body["message"]?.string?.contains("denied access to hooks") == true)
            #expect(try await world.call("GET", "/hooks/g/h").body == before)
        }
    }

    @Test(arguments: ["hooks-of.us", "a-b_c"])
    func `H18: no hook may hear announcements of fires, wherever they are made`(namespace: String) throws {
        let rules = try HookRules(deniedExchanges: HookRules.alwaysDenied(namespace: namespace))
        func isDenied(_ exchange: String) -> Bool {
            do throws(InvalidHook) {
                try rules.checkBindings([HookBinding(exchange: exchange, routingKeyPattern: "#")])
                return false
            } catch {
                return true
            }
        }
        #expect(isDenied("exchange/\(namespace)/v1/hook-fired"))
        #expect(isDenied("exchange/\(namespace)/v1/hook-failed"))
        #expect(!isDenied("exchange/\(namespace)/v1/hook-created"))
        #expect(!isDenied("exchange/hooks-ofxus/v1/hook-fired"))
        #expect(!isDenied("exchange/other/v1/hook-fired"))
    }

    @Test func `H20: an update with an empty list of bindings clears them`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], ["bindings": [["exchange": "e", "routingKeyPattern": "#"]]])
            let cleared = try await world.call("POST", "/hooks/g/h", HooksWorld.request([:], ["bindings": []]))
            #expect(cleared.body["bindings"] == [])
            #expect(try await world.call("GET", "/hooks/g/h").body["bindings"] == [])
        }
    }

    @Test func `H21: an update takes its next date from the new schedule and keeps the token`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], ["schedule": ["0 0 3 1 1 *"]])
            let token = try await world.call("GET", "/hooks/g/h/token").body
            let changed = HooksWorld.request([:], ["schedule": ["0 30 4 2 2 *"]])
            #expect(try await world.call("POST", "/hooks/g/h", changed).status == 200)
            let next = try await world.call("GET", "/hooks/g/h/status").body["nextScheduledDate"]?.string
            #expect(next?.hasSuffix("-02-02T04:30:00.000Z") == true)
            #expect(try await world.call("GET", "/hooks/g/h/token").body == token)
        }
    }

    @Test func `H22: a group ends with its last hook, and history ends with the hook`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            _ = try await world.call("PUT", "/hooks/g/other", HooksWorld.request())
            let token = try await world.call("GET", "/hooks/g/h/token").body
            _ = try await world.call("POST", "/hooks/g/h/trigger", [:])
            _ = try await world.call("DELETE", "/hooks/g/h")
            #expect(try await world.call("GET", "/hooks").body == ["groups": ["g"]])
            #expect(try await world.call("GET", "/hooks/g/h/last-fires").status == 404)
            _ = try await world.call("DELETE", "/hooks/g/other")
            #expect(try await world.call("GET", "/hooks").body == ["groups": []])
            try await world.create()
            #expect(try await world.call("GET", "/hooks/g/h/token").body != token)
            #expect(try await world.call("GET", "/hooks/g/h/last-fires").status == 404)
        }
    }

    @Test func `H25: a new hook has not fired, and a next date only with a schedule`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            #expect(try await world.call("GET", "/hooks/g/h/status").body == ["lastFire": ["result": "no-fire"]])
            _ = try await world.call("PUT", "/hooks/g/s", HooksWorld.request([:], ["schedule": ["@daily"]]))
            let status = try await world.call("GET", "/hooks/g/s/status").body
            #expect(status["lastFire"] == ["result": "no-fire"])
            #expect(status["nextScheduledDate"]?.string?.hasSuffix("T00:00:00.000Z") == true)
        }
    }
}
