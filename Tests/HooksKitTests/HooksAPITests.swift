// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Schedules
import Taskcluster
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(8)))
struct HooksAPITests {
    let open: JSONObject = ["triggerSchema": ["type": "object"]]

    @Test func `H1: a created hook is answered and read with its defaults`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let created = try await world.create()
            #expect(created.status == 200)
            let read = try await world.call("GET", "/hooks/g/h")
            #expect(read.status == 200)
            #expect(read.body == created.body)
            #expect(read.body["hookGroupId"] == "g")
            #expect(read.body["hookId"] == "h")
            #expect(read.body["metadata"]?["emailOnError"] == true)
            #expect(read.body["schedule"] == [])
            #expect(read.body["bindings"] == [])
            #expect(read.body["triggerSchema"] == ["type": "object", "additionalProperties": false])
        }
    }

    @Test func `H2, H3, H5: the same definition again succeeds and another one conflicts`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let first = try await world.create()
            let token = try await world.call("GET", "/hooks/g/h/token").body["token"]
            #expect(try await world.create().status == 200)
            #expect(try await world.call("GET", "/hooks/g/h/token").body["token"] == token)
            let metadata: JSONValue = ["name": "n", "description": "another", "owner": "owner@example.com"]
            for other: JSONObject in [["metadata": metadata], ["task": ["payload": ["other": true]]]] {
                let refused = try await world.create(["payload": [:]], other)
                #expect(refused.status == 409)
                #expect(refused.body["code"] == "RequestConflict")
                #expect(refused.body["message"]?.string?.hasPrefix("hook `g/h` already exists.") == true)
            }
            #expect(try await world.call("GET", "/hooks/g/h").body == first.body)
            let messages = try await world.pool.query(
                "select exchange, routing_key, body from hooks.outbox order by id"
            )
            #expect(messages.count == 2)
            for message in messages {
                let (exchange, key) = (try message.string("exchange"), try message.string("routing_key"))
                #expect(exchange == "exchange/taskcluster-hooks/v1/hook-created")
                #expect(key == "_")
            }
        }
    }

    @Test func `H6, H7: a hook's name may hold slashes and must agree with the address`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let wrong = HooksWorld.request([:], ["hookId": "x"])
            #expect(try await world.call("PUT", "/hooks/g/a%2Fb", wrong).body["code"] == "InputError")
            let right = HooksWorld.request([:], ["hookId": "a/b"])
            #expect(try await world.call("PUT", "/hooks/g/a%2Fb", right).status == 200)
            #expect(try await world.call("GET", "/hooks/g/a%2Fb").body["hookId"] == "a/b")
            #expect(try await world.call("GET", "/hooks/g").body["hooks"]?.array?.count == 1)
        }
    }

    @Test func `H8: identifiers outside the alphabet are refused by name`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let answer = try await world.call("PUT", "/hooks/a:b/h", HooksWorld.request())
            #expect(answer.status == 400)
            #expect(answer.body["code"] == "InvalidRequestArguments")
            #expect(answer.body["message"]?.string?.contains("hookGroupId") == true)
        }
    }

    @Test func `H9, H11: changing needs both scopes and reading the one with a colon`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            for scopes in [nil, "hooks:modify-hook:*", "assume:hook-id:*"] {
                #expect(try await world.call("PUT", "/hooks/g/h", HooksWorld.request(), scopes: scopes).status == 403)
            }
            let both = "hooks:modify-hook:g/* assume:hook-id:g/*"
            #expect(try await world.call("PUT", "/hooks/g/h", HooksWorld.request(), scopes: both).status == 200)
            #expect(try await world.call("GET", "/hooks/g/h", scopes: "hooks:get:g/h").status == 403)
            #expect(try await world.call("GET", "/hooks/g/h", scopes: "hooks:get:g:h").status == 200)
        }
    }

    @Test func `H15, H16: schedules that cannot be parsed or never come are refused`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            for pattern in ["0 0 3 0 * *", "x", "0 0 0 30 2 *", "0 0 0 31 4,6 *"] {
                let answer = try await world.create([:], ["schedule": [JSONValue(pattern)]])
                #expect(answer.status == 400)
                #expect(answer.body["code"] == "InputError")
                #expect(answer.body["message"]?.string?.contains(pattern) == true)
            }
            #expect(try await world.create([:], ["schedule": ["0 0 0 29 2 *"]]).status == 200)
        }
    }

    @Test func `H17, H18: unusable trigger schemas and denied exchanges are refused`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            for schema: JSONValue in [["type": "banana"], ["$schema": "http://nowhere/x#"]] {
                let answer = try await world.create([:], ["triggerSchema": schema])
                #expect(answer.status == 400)
                #expect(answer.body["message"]?.string?.contains("must be") == true)
            }
            func bound(_ exchange: String) -> JSONObject {
                ["bindings": [["exchange": JSONValue(exchange), "routingKeyPattern": "#"]]]
            }
            #expect(try await world.create([:], bound("exchange/taskcluster-queue/v1/task-created")).status == 400)
            #expect(try await world.create([:], bound("exchange/taskcluster-hooks/v1/hook-created")).status == 400)
            #expect(try await world.create([:], bound("exchange/taskcluster-queue/v1/task-completed")).status == 200)
        }
    }

    @Test func `H19, H20: an update needs a hook, keeps bindings and forgets the schedule`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let bad = HooksWorld.request([:], ["schedule": ["x"]])
            #expect(try await world.call("POST", "/hooks/g/h", bad).status == 404)
            let bindings: JSONValue = [["exchange": "e", "routingKeyPattern": "#"]]
            try await world.create([:], ["schedule": ["0 0 0 * * *"], "bindings": bindings])
            #expect(try await world.call("GET", "/hooks/g/h/status").body["nextScheduledDate"] != nil)
            let updated = try await world.call("POST", "/hooks/g/h", HooksWorld.request([:]))
            #expect(updated.body["bindings"] == bindings)
            #expect(updated.body["schedule"] == [])
            let status = try await world.call("GET", "/hooks/g/h/status")
            #expect(status.body["lastFire"] == ["result": "no-fire"])
            #expect(status.body["nextScheduledDate"] == nil)
        }
    }

    @Test func `H22, H23: deleting is idempotent and empties lists`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            #expect(try await world.call("DELETE", "/hooks/g/h").body == [:])
            #expect(try await world.call("DELETE", "/hooks/g/h").status == 200)
            #expect(try await world.call("GET", "/hooks/g/h").status == 404)
            #expect(try await world.call("GET", "/hooks/g").status == 404)
            #expect(try await world.call("GET", "/hooks").body == ["groups": []])
        }
    }

    @Test func `H27, H28: tokens stay until reset and trigger without credentials`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            let first = try await world.call("GET", "/hooks/g/h/token").body["token"]?.string ?? ""
            #expect(Slugid.isValid(first))
            #expect(first.utf8.count == 22)
            #expect(try await world.call("GET", "/hooks/g/h/token").body["token"]?.string == first)
            let wrong = try await world.call("POST", "/hooks/g/h/trigger/\(Slugid.make())", [:], scopes: nil)
            #expect(wrong.status == 401)
            #expect(wrong.body["code"] == "AuthenticationFailed")
            #expect(world.queue.tasks.isEmpty)
            let fired = try await world.call("POST", "/hooks/g/h/trigger/\(first)", [:], scopes: nil)
            #expect(fired.status == 200)
            #expect(world.queue.tasks[fired.body["taskId"]?.string ?? ""] != nil)
            let second = try await world.call("POST", "/hooks/g/h/token").body["token"]?.string ?? ""
            #expect(second != first)
            #expect(try await world.call("GET", "/hooks/g/h/token").body["token"]?.string == second)
            let old = try await world.call("POST", "/hooks/g/h/trigger/\(first)", [:], scopes: "Hawk garbage")
            #expect(old.status == 401)
            #expect(old.body["code"] == "AuthenticationFailed")
            #expect(
                try await world.call("POST", "/hooks/g/h/trigger/\(second)", [:], scopes: "Hawk garbage").status == 200
            )
            #expect(try await world.call("POST", "/hooks/g/x/trigger/\(second)", [:], scopes: nil).status == 404)
        }
    }

    @Test func `H29, H30: payloads must satisfy the trigger schema`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            #expect(try await world.call("POST", "/hooks/g/h/trigger", [:]).status == 200)
            let refused = try await world.call("POST", "/hooks/g/h/trigger", ["a": 1])
            #expect(refused.status == 400)
            #expect(refused.body["code"] == "InputError")
            let schema: JSONValue = [
                "type": "object", "properties": ["x": ["type": "integer"], "y": ["type": "string"]],
                "required": ["x", "y"],
            ]
            _ = try await world.call("POST", "/hooks/g/h", HooksWorld.request([:], ["triggerSchema": schema]))
            let both = try await world.call("POST", "/hooks/g/h/trigger", ["x": "a"])
            #expect(both.status == 400)
            #expect(both.body["code"] == "InputError")
            let message = both.body["message"]?.string ?? ""
            let problems = message.split(separator: "\n").first?.split(separator: "; ").map(String.init) ?? []
            let wanted = ["data must have required property 'y'", "data/x must be integer"]
            #expect(problems.sorted() == wanted)
        }
    }

    @Test func `H32, H41: the template sees the occasion and gets its four times filled in`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            let template: JSONValue = ["payload": ["t": "${payload.who} ${clientId} ${firedBy} ${taskId} ${now}"]]
            try await world.create(template, open)
            let answer = try await world.call("POST", "/hooks/g/h/trigger", ["who": "me"])
            let id = answer.body["taskId"]?.string ?? ""
            let task = world.queue.tasks[id]
            let text = task?["created"]?.string ?? "?"
            #expect(task?["payload"]?["t"]?.string == "me c triggerHook \(id) \(text)")
            #expect(task?["taskGroupId"]?.string == id)
            let created = try #require(Timestamp(text))
            #expect(created > .now() - .seconds(240) && created <= .now())
            #expect(task?["deadline"]?.string == (created + .seconds(86_400)).iso8601)
            #expect(task?["expires"]?.string == (created + .seconds(30 * 86_400)).iso8601)
            #expect(task?["schedulerId"] == nil)
        }
    }

    @Test func `H34, H35: a chosen task id is used once, and the same request again is harmless`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["payload": [:]], open)
            let id = Slugid.make()
            for _ in 0..<2 {
                let answer = try await world.call("POST", "/hooks/g/h/trigger", ["taskId": JSONValue(id)])
                #expect(answer.body["taskId"]?.string == id)
            }
            #expect(world.queue.tasks.count == 1)
            #expect(try await world.history().count == 1)
            let other = try await world.call("POST", "/hooks/g/h/trigger", ["taskId": JSONValue(id), "x": 1])
            #expect(other.status == 400)
            let nope = try await world.call("POST", "/hooks/g/h/trigger", ["taskId": "nope"])
            #expect(nope.status == 400)
            #expect(nope.body["message"]?.string?.hasPrefix("Invalid taskId format: nope") == true)
            #expect(world.queue.tasks.count == 1)
            let empty = try await world.call("POST", "/hooks/g/h/trigger", ["taskId": ""])
            #expect(empty.status == 200)
            let random = empty.body["taskId"]?.string ?? ""
            #expect(Slugid.isValid(random))
            #expect(random != id)
        }
    }

    @Test func `H36, H37: a declining template leaves no trace and a wrong one an error`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create(["$if": "firedBy == 'schedule'", "then": [:]], open)
            let declined = try await world.call("POST", "/hooks/g/h/trigger", [:])
            #expect(declined.status == 200)
            #expect(declined.body == [:])
            #expect(try await world.call("GET", "/hooks/g/h/last-fires").status == 404)
            #expect(world.queue.state.withLock { $0.calls.isEmpty })
            _ = try await world.call("POST", "/hooks/g/h", HooksWorld.request(["x": "${nope}"], open))
            let failed = try await world.call("POST", "/hooks/g/h/trigger", [:])
            #expect(failed.status == 400)
            #expect(failed.body["code"] == "InputError")
            #expect(failed.body["message"]?.string?.hasPrefix("While firing hook:") == true)
            let row = try await world.history().first
            #expect(row?["result"] == "error")
            #expect(row?["firedBy"] == "triggerHook")
        }
    }

    @Test func `H38, H39: refusals of the queue reach the caller and the history`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            world.queue.refuse(403, "InsufficientScopes")
            let scopes = try await world.call("POST", "/hooks/g/h/trigger", [:])
            #expect(scopes.status == 403)
            #expect(scopes.body["code"] == "InsufficientScopes")
            #expect(scopes.body["message"]?.string?.hasPrefix("The role `hook-id:g/h` does not have") == true)
            #expect(scopes.body["message"]?.string?.contains("the queue's reason") == true)
            let error = try await world.call("GET", "/hooks/g/h/status").body["lastFire"]?["error"]
            #expect(error?["statusCode"] == 403)
            #expect(error?["code"] == "InsufficientScopes")
            world.queue.refuse(400, "InputValidationError")
            let invalid = try await world.call("POST", "/hooks/g/h/trigger", [:])
            #expect(invalid.status == 400)
            #expect(invalid.body["code"] == "InputError")
            #expect(
                invalid.body["message"]?.string?.hasPrefix("While calling createTask: InputValidationError") == true
            )
        }
    }

    @Test func `H63: the history comes in pages, newest first, each fire once`() async throws {
        try await HooksWorld.with { (world: HooksWorld) async throws -> Void in
            try await world.create()
            for _ in 0..<3 { _ = try await world.call("POST", "/hooks/g/h/trigger", [:]) }
            var seen: [String] = []
            var query = "?limit=1"
            for _ in 0..<3 {
                let page = try await world.call("GET", "/hooks/g/h/last-fires" + query).body
                seen += page["lastFires"]?.array?.compactMap { $0["taskId"]?.string } ?? []
                #expect(page["lastFires"]?[0]?["taskState"] == "pending")
                guard let token = page["continuationToken"]?.string else { break }
                query = "?limit=1&continuationToken=\(token)"
            }
            #expect(seen.count == 3)
            #expect(Set(seen).count == 3)
        }
    }
}
