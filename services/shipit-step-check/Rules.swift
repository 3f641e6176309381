// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

extension Checker {
    /// The rules, in the order in which they are tried.
    static let rules: [Rule] = [
        ("create", "PUT /{uid} creates a step", { try await $0.creates($1) }),
        ("repeat", "the same PUT again is answered alike and begins nothing", { try await $0.repeats($1) }),
        ("race", "equal PUTs at the same time create one step", { try await $0.races($1) }),
        ("differ", "another definition under the same name is a conflict", { try await $0.differs($1) }),
        ("names", "names that cannot be, or are not the body's, are refused", { try await $0.names($1) }),
        ("bodies", "bodies that make no sense are refused", { try await $0.bodies($1) }),
        ("unknown", "steps that do not exist are unknown", { try await $0.unknown($1) }),
        ("definition", "GET /{uid}/definition tells what was asked for", { try await $0.definition($1) }),
        ("status", "GET /{uid}/status has all members, in both vocabularies", { try await $0.statusMakesSense($1) }),
        ("list", "GET / lists steps in pages", { try await $0.lists($1) }),
        ("keep", "DELETE refuses a step that goes on", { try await $0.keeps($1) }),
        ("cancel", "POST /{uid}/cancel ends a step, and may be repeated", { try await $0.cancels($1) }),
        ("final", "a step that has ended stays as it is", { try await $0.isFinal($1) }),
        ("delete", "DELETE frees the name for a new step", { try await $0.deletes($1) }),
        ("force", "DELETE with force cancels first", { try await $0.forces($1) }),
        ("succeed", "a step that succeeds says so", { try await $0.succeeds($1) }),
        ("admit", "nobody changes anything without credentials", { try await $0.admits($1) }),
    ]

    private func creates(_ uid: String) async throws {
        let reply = try expect(200, "PUT /\(uid)", try await session.send("PUT", "/\(uid)", subject.definition))
        try expect(reply.body?.object != nil, "the answer to PUT is no JSON object: \(reply.description)")
        try await status(uid)
    }

    private func repeats(_ uid: String) async throws {
        try await create(uid, subject.definition)
        let before = try await status(uid)
        var turned = JSONObject()
        for (key, value) in subject.definition.map({ ($0.key, $0.value) }).reversed() { turned[key] = value }
        for body in [subject.definition, turned] {
            try expect(200, "the same PUT again", try await session.send("PUT", "/\(uid)", body))
        }
        let after = try await status(uid)
        for name in ["created", "attempt"] {
            try expect(
                before[name] == after[name],
                "\(name) was \(before[name]?.text() ?? "absent") and is \(after[name]?.text() ?? "absent")"
            )
        }
    }

    private func races(_ uid: String) async throws {
        let statuses = try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<8 { group.addTask { try await session.send("PUT", "/\(uid)", subject.definition).status } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        try expect(statuses.allSatisfy { $0 == 200 }, "eight equal PUTs were answered with \(statuses.sorted())")
        let reply = try await session.call("GET", "/?uid_prefix=\(uid)")
        if let steps = reply.body?["steps"]?.array {
            let own = steps.count { $0["uid"]?.string == uid }
            try expect(own == 1, "eight equal PUTs made \(own) steps")
        }
    }

    private func differs(_ uid: String) async throws {
        try await create(uid, subject.definition)
        try refusal(409, "PUT with another definition", try await session.send("PUT", "/\(uid)", subject.other))
        let reply = try await session.call("GET", "/\(uid)/definition")
        for (key, value) in subject.definition {
            let found = reply.body?[key]
            try expect(Self.holds(found, value), "\(key) of the step was replaced by the refused request")
        }
    }

    private func names(_ uid: String) async throws {
        let long = String(repeating: "x", count: 81)
        for name in ["logout", long, "-\(uid)", "a%20b"] {
            try refusal(400, "PUT /\(name.prefix(20))", try await session.send("PUT", "/\(name)", subject.definition))
        }
        var body = subject.definition
        body["uid"] = .string("\(uid)-other")
        try refusal(400, "PUT with the uid of another", try await session.send("PUT", "/\(uid)", body))
        body["uid"] = .string(uid)
        try expect(200, "PUT with its own uid in the body", try await session.send("PUT", "/\(uid)", body))
    }

    private func bodies(_ uid: String) async throws {
        for text in ["{", "[]", "\"x\"", "{\"a\": }"] {
            let reply = try await session.call("PUT", "/\(uid)", body: Array(text.utf8))
            try refusal(400, "PUT with the body \(text)", reply)
        }
        if let invalid = subject.invalid {
            try refusal(400, "PUT with the invalid definition", try await session.send("PUT", "/\(uid)", invalid))
        }
        let reply = try await session.call("GET", "/\(uid)/status")
        try expect(reply.status == 404, "a refused PUT has left a step: \(reply.description)")
    }

    private func unknown(_ uid: String) async throws {
        for (method, path) in [
            ("GET", "/\(uid)/status"), ("GET", "/\(uid)/definition"), ("POST", "/\(uid)/cancel"), ("DELETE", "/\(uid)"),
        ] {
            try refusal(404, "\(method) \(path)", try await session.call(method, path))
        }
    }

    /// Whether a value is what was asked for; objects may have got further members, which are defaults.
    private static func holds(_ found: JSONValue?, _ wanted: JSONValue) -> Bool {
        switch (found, wanted) {
        case (.object(let found), .object(let wanted)): wanted.allSatisfy { holds(found[$0.key], $0.value) }
        case (.array(let found), .array(let wanted)):
            found.count == wanted.count && zip(found, wanted).allSatisfy { holds($0, $1) }
        default: found == wanted
        }
    }

    private func definition(_ uid: String) async throws {
        try await create(uid, subject.definition)
        let reply = try expect(200, "GET definition", try await session.call("GET", "/\(uid)/definition"))
        for (key, value) in subject.definition {
            let found = reply.body?[key]
            try expect(Self.holds(found, value), "\(key) is \(found?.text() ?? "absent"), not \(value.text())")
        }
    }

    /// The coarse word for each state.
    private static let vocabulary = [
        "pending": "in_progress", "starting": "in_progress", "running": "in_progress", "stopping": "in_progress",
        "completed": "success", "failed": "failure", "exception": "failure", "cancelled": "cancelled",
    ]

    private func check(_ status: JSONObject, _ uid: String) throws {
        try expect(status["uid"]?.string == uid, "uid is \(status["uid"]?.text() ?? "absent")")
        guard let state = status["state"]?.string, let coarse = Self.vocabulary[state] else {
            throw Broken(detail: "state is \(status["state"]?.text() ?? "absent")")
        }
        try expect(
            status["status"]?.string == coarse,
            "status is \(status["status"]?.text() ?? "absent") while state is \(state)"
        )
        try expect(status["message"]?.string != nil, "message is no text")
        try expect(status["message"]?.string != "None", "message is the word None")
        for name in ["created", "updated"] {
            try expect(status[name]?.string.flatMap { Timestamp($0) } != nil, "\(name) is no date and time")
        }
        for name in ["started", "finished", "completed"] {
            guard let value = status[name], !value.isNull else { continue }
            try expect(value.string.flatMap { Timestamp($0) } != nil, "\(name) is no date and time")
        }
        try expect((status["attempt"]?.int ?? 0) >= 1, "attempt is not 1 or more")
        try expect(status["output"]?.object != nil, "output is no object")
        try expect(status["info"]?.object != nil, "info is no object")
        try expect(status["links"]?.array != nil, "links is no list")
    }

    private func statusMakesSense(_ uid: String) async throws {
        try await create(uid, subject.definition)
        try check(try await status(uid), uid)
        let ended = try await cancel(uid)
        try check(ended, uid)
        try expect(ended["finished"]?.string != nil, "a step that has ended has no finished")
    }

    private func lists(_ uid: String) async throws {
        let names = (0..<3).map { "\(uid)-\($0)" }
        do {
            for name in names { try await create(name, subject.definition) }
            var seen: [String] = []
            var token: String?
            repeat {
                var path = "/?uid_prefix=\(uid)&limit=2"
                if let token { path += "&continuationToken=\(token)" }
                let reply = try expect(200, "GET /", try await session.call("GET", path))
                guard let steps = reply.body?["steps"]?.array else { throw Broken(detail: "GET / has no list steps") }
                try expect(steps.count <= 2, "a page of at most 2 steps has \(steps.count)")
                seen += steps.compactMap { $0["uid"]?.string }
                token = reply.body?["continuationToken"]?.string
                try expect(seen.count <= 20, "the pages never end")
            } while token != nil
            try expect(seen.sorted() == names, "the pages hold \(seen), not \(names)")
            try refusal(400, "GET /?state=busted", try await session.call("GET", "/?state=busted"))
        } catch {
            await remove(names)
            throw error
        }
        await remove(names)
    }

    private func remove(_ names: [String]) async {
        for name in names { _ = try? await session.call("DELETE", "/\(name)?force=true") }
    }

    private func keeps(_ uid: String) async throws {
        try await create(uid, subject.definition)
        try refusal(409, "DELETE of a step that goes on", try await session.call("DELETE", "/\(uid)"))
        let now = try await status(uid)
        try expect(!Self.isOver(now), "the refused DELETE has ended the step; it is \(Self.word(now))")
    }

    private func cancels(_ uid: String) async throws {
        try await create(uid, subject.definition)
        let reply = try await session.send("POST", "/\(uid)/cancel", ["reason": "a check"])
        try expect(200, "POST cancel", reply)
        let first = reply.body?["state"]?.string ?? "nothing"
        try expect(["stopping", "cancelled"].contains(first), "the answer to cancel says \(first)")
        let ended = try await wait(uid, "its end") { Self.isOver($0) }
        try expect(Self.word(ended) == "cancelled", "a cancelled step ended as \(Self.word(ended))")
        try expect(200, "cancel again", try await session.call("POST", "/\(uid)/cancel"))
    }

    private func isFinal(_ uid: String) async throws {
        try await create(uid, subject.definition)
        let ended = try await cancel(uid)
        try expect(200, "the same PUT again", try await session.send("PUT", "/\(uid)", subject.definition))
        for _ in 0..<3 {
            try await Task.sleep(for: .milliseconds(300))
            let now = try await status(uid)
            try expect(
                Self.word(now) == Self.word(ended) && now["finished"] == ended["finished"],
                "it was \(Self.word(ended)) and is \(Self.word(now))"
            )
        }
    }

    private func deletes(_ uid: String) async throws {
        try await create(uid, subject.definition)
        _ = try await cancel(uid)
        try expect(200, "DELETE of a step that has ended", try await session.call("DELETE", "/\(uid)"))
        let gone = try await session.call("GET", "/\(uid)/status")
        try expect(gone.status == 404, "a deleted step is answered with \(gone.description)")
        let list = try await session.call("GET", "/?uid_prefix=\(uid)")
        try expect(list.body?["steps"]?.array?.isEmpty == true, "a deleted step is still in the list")
        try await create(uid, subject.other)
        let anew = try await status(uid)
        try expect(!Self.isOver(anew), "the new step of a deleted name is \(Self.word(anew)) from the beginning")
    }

    private func forces(_ uid: String) async throws {
        try await create(uid, subject.definition)
        try expect(200, "DELETE with force", try await session.call("DELETE", "/\(uid)?force=true"))
        let limit = ContinuousClock.now + subject.patience
        while try await session.call("GET", "/\(uid)/status").status != 404 {
            try expect(ContinuousClock.now < limit, "the step is still there")
            try await Task.sleep(for: .milliseconds(200))
        }
    }

    private func succeeds(_ uid: String) async throws {
        guard let definition = subject.succeeding else { throw Skipped(detail: "needs --succeeding") }
        try await create(uid, definition)
        let ended = try await wait(uid, "success") { Self.isOver($0) }
        try check(ended, uid)
        try expect(Self.word(ended) == "completed", "it ended as \(Self.word(ended))")
        try expect(ended["completed"]?.string != nil, "a completed step has no completed")
        let late = try await session.call("POST", "/\(uid)/cancel")
        try refusal(409, "cancel of a step that has succeeded", late)
    }

    private func admits(_ uid: String) async throws {
        guard session.credentials != nil else { throw Skipped(detail: "needs credentials") }
        let body = JSONValue.object(subject.definition).bytes()
        let reply = try await session.call("PUT", "/\(uid)", body: body, isSigned: false)
        try expect([401, 403].contains(reply.status), "PUT without credentials was answered with \(reply.description)")
        let stored = try await session.call("GET", "/\(uid)/status")
        try expect(stored.status == 404, "PUT without credentials has made a step")
    }
}
