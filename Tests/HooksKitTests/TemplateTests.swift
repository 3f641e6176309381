// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(8)))
struct TemplateTests {
    /// Stores a template, triggers it with a payload and answers the payload of the task, or the complaint.
    private func fire(_ world: HooksWorld, _ template: JSONValue, _ payload: JSONValue = [:]) async throws -> JSONValue
    {
        let request = HooksWorld.request(["payload": template], ["triggerSchema": ["type": "object"]])
        _ = try await world.call("DELETE", "/hooks/g/h")
        #expect(try await world.call("PUT", "/hooks/g/h", request).status == 200)
        let answer = try await world.call("POST", "/hooks/g/h/trigger", payload)
        guard let id = answer.body["taskId"]?.string else { return answer.body["message"] ?? .null }
        return world.queue.tasks[id]?["payload"] ?? .null
    }

    @Test func `H89: a missing member is an error with a dot and nothing with brackets`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let dotted = try await fire(world, ["a": "${payload.missing}"])
            #expect(dotted.string?.contains("object has no property \"missing\"") == true)
            #expect(dotted.string?.contains("template.payload.a") == true)
            #expect(try await fire(world, ["a": "<${payload['missing']}>"]) == ["a": "<>"])
        }
    }

    @Test func `H90: text of other template languages passes unchanged`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let text: JSONValue = ["a": "{{ jinja }} {% if x %} {{ '2 days' | from-now }}"]
            #expect(try await fire(world, text) == text)
        }
    }

    @Test func `H91: a doubled dollar gives a key with one, and unknown operators are refused`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            #expect(try await fire(world, ["$$if": "x"]) == ["$if": "x"])
            let refused = try await fire(world, ["$foo": 1])
            #expect(refused.string?.hasPrefix("While firing hook:") == true)
            #expect(refused.string?.contains("is reserved; use $$") == true)
        }
    }

    @Test func `H92: keys of a payload may be anything`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            #expect(try await fire(world, ["x": "${payload['a-b']}"], ["a-b": "y"]) == ["x": "y"])
        }
    }

    @Test func `H93: numbers of a payload are printed as JavaScript prints them`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let numbers = try JSONValue(parsing: #"{"a":1.0,"b":1e21,"c":9007199254740993}"#)
            let template: JSONValue = ["t": "${payload.a} ${payload.b} ${payload.c}"]
            #expect(try await fire(world, template, numbers) == ["t": "1 1e+21 9007199254740992"])
        }
    }

    @Test func `H94: not binds tighter than a dot`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let loose = try await fire(world, ["x": ["$eval": "!payload.flag"]], ["flag": false])
            #expect(loose.string?.contains("InterpreterError") == true)
            #expect(try await fire(world, ["x": ["$eval": "!(payload.flag)"]], ["flag": false]) == ["x": true])
        }
    }

    @Test func `the older language is used by hooks that declare it`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let template: JSONValue = [
                "deadline": "{{ 2 hours | from-now }}", "expires": "{{ '1 day' | from-now }}",
                "payload": ["who": "{{ clientId }} {{ payload.name }}", "id": "{{ taskId }}", "jsone": "${x}"],
            ]
            let more: JSONObject = [
                "templateLanguage": "json-parameterization", "triggerSchema": ["type": "object"],
            ]
            #expect(try await world.create(template, more).body["templateLanguage"] == "json-parameterization")
            let id = try await world.call("POST", "/hooks/g/h/trigger", ["name": "x"]).body["taskId"]?.string ?? ""
            let task = try #require(world.queue.tasks[id])
            #expect(task["payload"] == ["who": "c x", "id": JSONValue(id), "jsone": "${x}"])
            let created = try #require(Timestamp(task["created"]?.string ?? ""))
            #expect(task["deadline"]?.string == (created + .seconds(7200)).iso8601)
            let wrong = HooksWorld.request(["payload": ["{{ soon | from-now }}"]], more)
            _ = try await world.call("POST", "/hooks/g/h", wrong)
            let failed = try await world.call("POST", "/hooks/g/h/trigger", [:])
            #expect(failed.body["message"]?.string?.contains("template.payload[0]: 'soon'") == true)
            #expect(try await world.call("PUT", "/hooks/g/x", HooksWorld.request()).body["templateLanguage"] == nil)
        }
    }

    @Test func `a changed template is used by the next trigger`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["payload": ["version": 1]])
            for version in 1...3 {
                let request = HooksWorld.request(["payload": ["version": JSONValue(version)]])
                _ = try await world.call("POST", "/hooks/g/h", request)
                let id = try await world.call("POST", "/hooks/g/h/trigger", [:]).body["taskId"]?.string ?? ""
                #expect(world.queue.tasks[id]?["payload"]?["version"] == JSONValue(version))
            }
        }
    }

    // MARK: - Trying out

    @Test func `rendering tells the task and its scopes, and fires nothing`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let template: JSONValue = [
                "provisionerId": "p", "workerType": "w", "scopes": ["s"],
                "payload": ["who": "${clientId} ${payload.x}"],
            ]
            try await world.create(template, ["triggerSchema": ["type": "object", "required": ["x"]]])
            let path = "/hooks/g/h/render"
            let answer = try await world.call(
                "POST",
                path,
                ["payload": ["x": 1], "now": "2024-02-10T12:00:00.000Z", "taskId": "VdYnEtzpQs6ZdoNrVAj9Mw"],
                scopes: "hooks:get:g:h"
            )
            #expect(answer.status == 200)
            #expect(answer.body["result"] == "task")
            #expect(answer.body["task"]?["payload"] == ["who": "c 1"])
            #expect(answer.body["task"]?["deadline"] == "2024-02-11T12:00:00.000Z")
            #expect(answer.body["task"]?["taskGroupId"] == "VdYnEtzpQs6ZdoNrVAj9Mw")
            #expect(answer.body["requiredScopes"]?.array?.contains("queue:create-task:lowest:p/w") == true)
            let rejected = try await world.call("POST", path, [:])
            #expect(rejected.body["result"] == "rejected")
            #expect(rejected.body["problems"]?[0]?["message"] == "must have required property 'x'")
            let failed = try await world.call("POST", path, ["payload": ["x": [1]]])
            #expect(failed.body["result"] == "error")
            #expect(failed.body["error"]?["location"] == "template.payload.who")
            let scheduled = try await world.call("POST", path, ["firedBy": "schedule"])
            #expect(scheduled.body["error"]?["message"]?.string?.contains("clientId") == true)
            let instant: JSONValue = [
                "firedBy": "schedule", "task": ["payload": "${scheduledFor}"], "now": "2024-02-10T12:00:00.000Z",
            ]
            let timely = try await world.call("POST", path, instant)
            #expect(timely.body["task"]?["payload"] == "2024-02-10T12:00:00.000Z")
            #expect(try await world.call("POST", path, [:], scopes: "hooks:trigger-hook:g/h").status == 403)
            #expect(world.queue.tasks.isEmpty)
            #expect(try await world.call("GET", "/hooks/g/h/last-fires").status == 404)
        }
    }

    @Test func `a template can be tried before its hook exists`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let path = "/hooks/g/h/render"
            #expect(try await world.call("POST", path, [:]).status == 404)
            let task: JSONValue = ["$if": "firedBy == 'pulseMessage'", "then": ["payload": "${routingKey} ${payload}"]]
            let declined = try await world.call("POST", path, ["task": task])
            #expect(declined.body == ["result": "declined"])
            let request: JSONValue = [
                "task": task, "triggerSchema": ["type": "string"], "firedBy": "pulseMessage", "payload": "body",
                "exchange": "e", "routingKey": "a.b",
            ]
            #expect(try await world.call("POST", path, request).body["task"]?["payload"] == "a.b body")
            let old: JSONValue = [
                "task": ["payload": "{{ firedBy }}"], "templateLanguage": "json-parameterization",
            ]
            #expect(try await world.call("POST", path, old).body["task"]?["payload"] == "triggerHook")
            let broken: JSONValue = ["task": [:], "triggerSchema": ["type": "banana"]]
            #expect(try await world.call("POST", path, broken).status == 400)
            #expect(
                try await world.call("POST", path, ["firedBy": "schedule", "payload": [:], "task": [:]]).status == 400
            )
        }
    }

    @Test func `filters of the stored bindings are tried with a message`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let bindings: JSONValue = [["exchange": "e", "routingKeyPattern": "a.#", "filter": "payload.n > 1"]]
            try await world.create(["payload": [:]], ["bindings": bindings, "triggerSchema": ["type": "object"]])
            func tried(_ payload: JSONValue) async throws -> JSONValue {
                let request: JSONValue = [
                    "firedBy": "pulseMessage", "exchange": "e", "routingKey": "a.b", "payload": payload,
                ]
                return try await world.call("POST", "/hooks/g/h/render", request).body
            }
            #expect(try await tried(["n": 2])["result"] == "task")
            #expect(try await tried(["n": 1]) == ["result": "declined", "reason": "no filter lets it pass"])
            #expect(try await tried([:])["error"]?["message"]?.string?.contains("no property \"n\"") == true)
        }
    }

    // MARK: - The first design

    @Test(
        arguments: [
            (["type": "none"], []), (["type": "daily", "timeOfDay": [18, 6]], ["0 0 6,18 * * *"]),
            (
                ["type": "weekly", "dayOfWeek": ["sunday", "friday"], "timeOfDay": [3]], ["0 0 3 * * 0,5"]
            ),
            (["type": "monthly", "dayOfMonth": [31, 1], "timeOfDay": [0]], ["0 0 0 1,31 * *"]),
        ] as [(JSONValue, JSONValue)]
    ) func `schedules of the first design become patterns`(format: JSONValue, patterns: JSONValue) async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let created = try await world.create([:], ["schedule": ["format": format]])
            #expect(created.body["schedule"] == patterns)
            #expect(try await world.create([:], ["schedule": patterns]).status == 200)
            let old = try await world.call("GET", "/hooks/g/h/schedule").body
            let status = try await world.call("GET", "/hooks/g/h/status").body
            #expect(old["nextScheduledDate"] == status["nextScheduledDate"])
            #expect(patterns == [] ? old == [:] : old["schedule"] == patterns)
        }
    }

    @Test func `PATCH replaces a hook as POST does`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let changed = HooksWorld.request(["payload": ["changed": true]])
            #expect(try await world.call("PATCH", "/hooks/g/h", changed).status == 404)
            try await world.create([:], ["schedule": ["@daily"]])
            let answer = try await world.call("PATCH", "/hooks/g/h", changed)
            #expect(answer.status == 200)
            #expect(answer.body["schedule"] == [])
            #expect(try await world.call("GET", "/hooks/g/h").body == answer.body)
            let few = "hooks:modify-hook:g/h"
            #expect(try await world.call("PATCH", "/hooks/g/h", changed, scopes: few).status == 403)
            #expect(try await world.create([:], ["schedule": ["format": ["type": "hourly"]]]).status == 400)
        }
    }
}
