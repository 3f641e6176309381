// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPClient
import HooksKit
import JSON
import Logging
import Schedules
import Synchronization
import Taskcluster
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(8)))
struct TriggerTests {
    let open: JSONObject = ["triggerSchema": ["type": "object"]]

    @Test func `H26: secrets appear in no reply but the token's own, and in no line of the log`() async throws {
        let lines = Mutex<[String]>([])
        let handler = LineLogHandler(service: "tests", level: .trace) { line in lines.withLock { $0.append(line) } }
        let logger = Logger(label: "tests") { _ in handler }
        let secrets = try await HooksWorld.with(logger: logger) { (world: HooksWorld) async throws -> [String] in
            var replies: [JSONValue] = []
            replies.append(try await world.create(["payload": [:]], ["schedule": ["@daily"]]).body)
            let token = try await world.call("GET", "/hooks/g/h/token").body["token"]?.string ?? ""
            let row = try await world.pool.query("select encrypted_next_task_id as id from hooks.hooks").first
            let name = HookName(group: "g", hook: "h")
            let taskID = try world.box.open(try row?.string("id") ?? "", for: name)
            for path in ["/hooks", "/hooks/g", "/hooks/g/h", "/hooks/g/h/status"] {
                replies.append(try await world.call("GET", path).body)
            }
            let wrong = "x" + token.dropFirst()
            for guess in [token, wrong] {
                replies.append(try await world.call("POST", "/hooks/g/h/trigger/\(guess)", [:], scopes: nil).body)
                replies.append(try await world.call("POST", "/hooks/g/h/trigger/\(guess)?x=1", [:]).body)
                replies.append(try await world.call("POST", "/hooks/g/h/trigger/\(guess)", "scalar").body)
            }
            replies.append(try await world.call("GET", "/hooks/g/h/last-fires").body)
            let text = replies.map { $0.text() }.joined()
            for secret in [token, wrong, taskID] { #expect(!text.contains(secret)) }
            return [token, wrong, taskID]
        }
        let log = lines.withLock { $0.joined() }
        #expect(log.contains("hook-fire"))
        for secret in secrets { #expect(!log.contains(secret)) }
    }

    @Test func `H27: an unknown hook has no token to get or reset`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            for method in ["GET", "POST"] {
                let answer = try await world.call(method, "/hooks/g/h/token")
                #expect(answer.status == 404)
                #expect(answer.body["message"]?.string?.hasPrefix("No such hook") == true)
            }
        }
    }

    @Test func `H31: a payload is a JSON object and says that it is JSON`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create([:], open)
            let bodies: [(text: String, type: String?, code: String)] = [
                ("[]", "application/json", "InputValidationError"), ("\"x\"", "application/json", "MalformedPayload"),
                ("{", "application/json", "MalformedPayload"), ("{}", nil, "MalformedPayload"),
                ("a=b", "application/x-www-form-urlencoded", "MalformedPayload"),
            ]
            for (text, type, code) in bodies {
                let answer = try await world.send("POST", "/hooks/g/h/trigger", Array(text.utf8), type: type)
                #expect(answer.status == 400)
                #expect(answer.body["code"]?.string == code)
            }
            #expect(world.queue.state.withLock { $0.calls.isEmpty })
        }
    }

    @Test func `H28: query options of a call with a token are refused, or ignored if the operator says so`()
        async throws
    {
        for ignores in [false, true] {
            try await HooksWorld.with(ignoresTokenQuery: ignores) { (world: HooksWorld) async throws -> Void in
                try await world.create()
                let token = try await world.call("GET", "/hooks/g/h/token").body["token"]?.string ?? ""
                let path = "/hooks/g/h/trigger/\(token)?source=phabricator"
                let answer = try await world.call("POST", path, [:], scopes: nil)
                #expect(answer.status == (ignores ? 200 : 400))
                #expect(ignores || answer.body["code"] == "InvalidRequestArguments")
            }
        }
    }

    @Test func `H33: without credentials there is no clientId, and the history tells`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["payload": ["by": "${clientId}"]], open)
            let token = try await world.call("GET", "/hooks/g/h/token").body["token"]?.string ?? ""
            let answer = try await world.call("POST", "/hooks/g/h/trigger/\(token)", [:], scopes: nil)
            #expect(answer.status == 400)
            #expect(answer.body["message"]?.string?.hasPrefix("While firing hook:") == true)
            let row = try await world.history().first
            #expect(row?["firedBy"] == "triggerHookWithToken")
            #expect(row?["error"]?.string?.contains("unknown context value clientId") == true)
        }
    }

    @Test func `H34: a chosen task id needs a schema that permits it`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            let answer = try await world.call("POST", "/hooks/g/h/trigger", ["taskId": JSONValue(Slugid.make())])
            #expect(answer.status == 400)
            #expect(answer.body["message"]?.string?.contains("must NOT have additional properties") == true)
        }
    }

    @Test func `H36: a declined fire is in the log and nowhere else`() async throws {
        let lines = Mutex<[String]>([])
        let handler = LineLogHandler(service: "tests", level: .info) { line in lines.withLock { $0.append(line) } }
        try await HooksWorld.with(logger: Logger(label: "tests") { _ in handler }) { world in
            try await world.create(["$if": "firedBy == 'schedule'", "then": [:]])
            #expect(try await world.call("POST", "/hooks/g/h/trigger", [:]).body == [:])
            #expect(try await world.call("GET", "/hooks/g/h/last-fires").status == 404)
        }
        let fires = try lines.withLock { $0 }.map { try JSONValue(parsing: $0) }
            .filter { $0["Type"]?.string?.hasSuffix("hook-fire") == true }
        #expect(fires.map { $0["Fields"]?["result"]?.string } == ["declined"])
    }

    @Test func `H40: a trigger is repeated while the queue is unwell, and then reported`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            world.queue.refuse(503, "InternalServerError", times: 2)
            let patient = try await world.call("POST", "/hooks/g/h/trigger", [:])
            #expect(patient.status == 200)
            #expect(Set(world.queue.state.withLock { $0.calls.map(\.taskID) }).count == 1)
            world.queue.refuse(500, "InternalServerError", times: 6)
            let failed = try await world.call("POST", "/hooks/g/h/trigger", [:])
            #expect(failed.status == 400)
            #expect(
                failed.body["message"]?.string?.hasPrefix("While calling createTask: InternalServerError") == true
            )
            #expect(world.queue.state.withLock { $0.calls.count } == 9)
            let row = try await world.history().first
            #expect(row?["result"] == "error")
            #expect(row?["taskState"] == "unknown")
        }
    }

    @Test func `a trigger that reaches no queue is told so, and the history as well`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            world.queue.refuse(0, "", times: 6)
            let failed = try await world.call("POST", "/hooks/g/h/trigger", [:])
            #expect(failed.status == 400)
            #expect(failed.body["code"] == "InputError")
            #expect(failed.body["message"]?.string?.hasPrefix("While firing hook:\n\n") == true)
            #expect(try await world.history().map { $0["result"] } == ["error"])
        }
    }

    @Test func `what renders to nothing is declined, and what renders to no object is an error`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            for nothing in ["null", "false", "0", "''"] {
                let request = HooksWorld.request(["$eval": JSONValue(nothing)])
                let verb = nothing == "null" ? "PUT" : "POST"
                #expect(try await world.call(verb, "/hooks/g/h", request).status == 200)
                let declined = try await world.call("POST", "/hooks/g/h/trigger", [:])
                #expect(declined.status == 200, "\(nothing)")
                #expect(declined.body == [:], "\(nothing)")
            }
            #expect(try await world.call("GET", "/hooks/g/h/last-fires").status == 404)
            for something in ["'text'", "7", "[1]", "true"] {
                _ = try await world.call("POST", "/hooks/g/h", HooksWorld.request(["$eval": JSONValue(something)]))
                let failed = try await world.call("POST", "/hooks/g/h/trigger", [:])
                #expect(failed.status == 400, "\(something)")
                #expect(failed.body["message"]?.string?.hasPrefix("While firing hook:") == true, "\(something)")
            }
            #expect(try await world.history().count == 4)
            #expect(world.queue.state.withLock { $0.calls.isEmpty })
        }
    }

    @Test func `H41: a task keeps the times it has and gets those it lacks`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let own: JSONObject = ["deadline": ["$fromNow": "1 hour"], "taskGroupId": "VdYnEtzpQs6ZdoNrVAj9Mw"]
            try await world.create(.object(own))
            let id = try await world.call("POST", "/hooks/g/h/trigger", [:]).body["taskId"]?.string ?? ""
            let task = try #require(world.queue.tasks[id])
            let created = try #require(Timestamp(task["created"]?.string ?? ""))
            #expect(task["deadline"]?.string == (created + .seconds(3600)).iso8601)
            #expect(task["expires"]?.string == (created + .seconds(30 * 86_400)).iso8601)
            #expect(task["taskGroupId"] == "VdYnEtzpQs6ZdoNrVAj9Mw")
            #expect(task["schedulerId"] == nil)
        }
    }

    @Test func `H42, H43: a caller needs only the trigger's scope, and the task gets only the role's`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            let answer = try await world.call("POST", "/hooks/g/h/trigger", [:], scopes: "hooks:trigger-hook:g/h")
            #expect(answer.status == 200)
            #expect(world.queue.state.withLock { $0.authorizedScopes } == [["assume:hook-id:g/h"]])
            let other = try await world.call("POST", "/hooks/g/h/trigger", [:], scopes: "hooks:trigger-hook:g/x")
            #expect(other.status == 403)
        }
    }

    @Test func `H44: everything else of a task reaches the queue unchanged`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let template: JSONValue = [
                "dependencies": ["VdYnEtzpQs6ZdoNrVAj9Mw"], "routes": ["index.a.b"],
                "extra": ["blob": JSONValue(String(repeating: "ä", count: 1_000_000)), "list": [1, nil, [:]]],
            ]
            #expect(try await world.create(template).status == 200)
            let id = try await world.call("POST", "/hooks/g/h/trigger", [:]).body["taskId"]?.string ?? ""
            let task = try #require(world.queue.tasks[id])
            for key in ["dependencies", "routes", "extra"] { #expect(task[key] == template[key]) }
        }
    }

    @Test func `H45, H88: all times of one task share its creation`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let template: JSONValue = [
                "payload": [
                    "a": ["$fromNow": "1 day"], "b": ["$fromNow": "1 day"], "now": ["$eval": "now"], "text": "${now}",
                ]
            ]
            try await world.create(template)
            let id = try await world.call("POST", "/hooks/g/h/trigger", [:]).body["taskId"]?.string ?? ""
            let task = try #require(world.queue.tasks[id])
            #expect(task["payload"]?["a"] != nil)
            #expect(task["payload"]?["a"] == task["payload"]?["b"])
            #expect(task["payload"]?["now"] == task["created"])
            #expect(task["payload"]?["text"] == task["created"])
        }
    }

    @Test func `defaults of the trigger schema reach the template and never change what is accepted`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let schema: JSONValue = [
                "type": "object", "properties": ["a": ["type": "string", "default": "x"]], "required": ["b"],
            ]
            try await world.create(["payload": ["a": "${payload.a}"]], ["triggerSchema": schema])
            let id = try await world.call("POST", "/hooks/g/h/trigger", ["b": 1]).body["taskId"]?.string ?? ""
            #expect(world.queue.tasks[id]?["payload"]?["a"] == "x")
            #expect(try await world.call("POST", "/hooks/g/h/trigger", ["a": "y"]).status == 400)
        }
    }
}
