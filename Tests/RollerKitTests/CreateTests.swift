// SPDX-License-Identifier: MPL-2.0

import Core
import Expressions
import JSON
import Testing
import TestSupport

@testable import RollerKit

@Suite(.timeLimit(.minutes(5)))
struct CreateTests {
    static let worker = "t-linux64-ms-001"
    static let routes = [
        "jobs?tc_worker_id=\(worker)&task_name=ping",
        "workers/\(worker)/group/mdc1/jobs?task_name=ping",
        "workers/\(worker)/jobs?task_name=ping&worker_group=mdc1&provisioner_id=releng-hardware&worker_type=linux",
    ]

    @Test func `R1: a preflight is answered without credentials and without the auth service`() async throws {
        try await APIWorld.with { api in
            for route in Self.routes + ["workers/nobody/jobs?task_name=nothing"] {
                let answer = try await api.call(
                    "OPTIONS",
                    route,
                    scopes: nil,
                    headers: ["Origin": "https://other.example"]
                )
                #expect(answer.status == 200 && answer.text == "{}")
                #expect(answer.headers["Access-Control-Allow-Origin"] == "https://other.example")
                #expect(answer.headers["Access-Control-Allow-Headers"] == "Authorization,Content-Type")
                #expect(answer.headers["Access-Control-Allow-Methods"] == "OPTIONS,POST")
                #expect(answer.headers["Vary"] == "Origin")
                #expect(answer.headers["Access-Control-Allow-Credentials"] == nil)
            }
            #expect(api.auth.requests.isEmpty)
        }
    }

    @Test func `R2: a page of a foreign site gets the same answer, for another origin`() async throws {
        try await APIWorld.with { api in
            let own = try await api.call(
                "OPTIONS",
                Self.routes[2],
                scopes: nil,
                headers: ["Origin": "https://tools.example"]
            )
            let foreign = try await api.call(
                "OPTIONS",
                Self.routes[2],
                scopes: nil,
                headers: ["Origin": "https://evil.example"]
            )
            #expect(foreign.status == own.status && foreign.bytes == own.bytes)
            #expect(foreign.headers["Access-Control-Allow-Origin"] == "https://tools.example")
            #expect(foreign.headers["Access-Control-Allow-Methods"] == own.headers["Access-Control-Allow-Methods"])
        }
    }

    @Test func `R3: each generation of routes makes a job and answers with its keys`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let keys = [
                ["task_name", "tc_worker_id", "task_id"],
                ["task_name", "worker_id", "worker_group", "task_id"],
                [
                    "task_id", "http_origin", "client_id", "provisioner_id", "worker_type", "worker_group", "worker_id",
                    "task_name",
                ],
            ]
            let sources: [JobSource] = [.apiFirst, .apiSecond, .api]
            for (index, route) in Self.routes.enumerated() {
                let answer = try await api.call(
                    "POST",
                    route,
                    scopes: ["ping"],
                    headers: ["Origin": "https://tools.example"]
                )
                #expect(answer.status == 201)
                let object = try #require(answer.json.object)
                for key in keys[index] { #expect(object[key]?.string != nil, "\(key) of route \(index)") }
                #expect(answer.json["status"] == "PENDING")
                let id = try #require(answer.json["task_id"]?.string)
                #expect(JobID.isValid(id))
                #expect(answer.headers["Location"] == "/api/v1/jobs/\(id)")
                #expect(try await api.world.jobs.job(id)?.source == sources[index])
                // The next one shall be a job of its own.
                try await api.world.claim(id, fence: index + 1)
                _ = try await api.world.jobs.finish(id, fence: index + 1, JobEnd(.succeeded, summary: "up"))
            }
            #expect(try await api.world.count("jobs") == 3)
        }
    }

    @Test func `R4: a temporary client is called by the name of its certificate`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let answer = try await api.call("POST", Self.routes[0], scopes: ["ping"])
            #expect(answer.status == 201 && answer.json["client_id"]?.string == APIWorld.sheriff)
        }
    }

    @Test func `R5: the scope of one task is not the scope of another`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let answer = try await api.call(
                "POST",
                "jobs?tc_worker_id=\(Self.worker)&task_name=reboot",
                scopes: ["ping"],
                headers: ["Origin": "https://tools.example"]
            )
            #expect(answer.status == 403)
            #expect(answer.json == ["detail": "You do not have permission to perform this action."])
            #expect(answer.headers["Access-Control-Allow-Origin"] == "https://tools.example")
            #expect(try await api.world.count("jobs") == 0)
            #expect(try await api.world.count("outbox") == 0)
        }
    }

    @Test func `R6: a star grants every task, a longer word none`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            for task in ["ping", "reboot"] {
                let route = "jobs?tc_worker_id=\(Self.worker)&task_name=\(task)"
                #expect(try await api.call("POST", route, scopes: ["*"]).status == 201)
                #expect(try await api.call("POST", route, scopes: ["=project:releng:rollerX"]).status == 403)
            }
            let narrow = ["reboot:releng-hardware/linux/mdc1/\(Self.worker)"]
            let full = "provisioner_id=releng-hardware&worker_type=linux&worker_group=mdc1"
            let own = "workers/\(Self.worker)/jobs?task_name=reboot&"
            #expect(try await api.call("POST", own + full, scopes: narrow).status == 200)
            #expect(try await api.call("POST", own + "worker_group=mdc1", scopes: narrow).status == 403)
            // Who may work on one worker cannot pass off another one as it.
            try await api.managed("t-linux64-ms-002")
            let wide = ["reboot:mine/own/mdc1/*"]
            let other =
                "workers/t-linux64-ms-002/jobs?task_name=reboot&provisioner_id=mine&worker_type=own&worker_group=mdc1"
            #expect(try await api.call("POST", other, scopes: wide).status == 404)
        }
    }

    @Test func `R7: without good credentials nobody gets in`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let none = try await api.call("POST", Self.routes[0], scopes: nil)
            #expect(none.status == 403 && none.json == ["detail": "invalid auth response status: no-auth "])
            #expect(none.headers["WWW-Authenticate"] == nil)
            var header = try api.signature("POST", "/api/v1/\(Self.routes[0])", scopes: ["ping"])
            header = header.replacing("nonce=\"", with: "nonce=\"x")
            let bad = try await api.call("POST", Self.routes[0], scopes: nil, headers: ["Authorization": header])
            #expect(bad.status == 403 && bad.json["detail"]?.string == "Unauthorized: Bad mac")
            let bearer = try await api.call(
                "POST",
                Self.routes[0],
                scopes: nil,
                headers: ["Authorization": "Bearer e30="]
            )
            #expect(bearer.status == 403 && bearer.json["detail"]?.string?.contains("Hawk") == true)
            #expect(api.auth.requests.count == 2)
            api.auth.answer(["scopes": []])
            let odd = try await api.call("POST", Self.routes[0])
            #expect(odd.status == 403 && odd.json == ["detail": "'status' not found invalid auth response"])
            api.auth.answer(["status": "auth-failed"])
            #expect(try await api.call("POST", Self.routes[0]).json == ["detail": "Unknown auth failure."])
            api.auth.goDown()
            let down = try await api.call("POST", Self.routes[0])
            #expect(down.status == 502 && down.headers["Retry-After"] == "5")
            #expect(down.json == ["detail": "Authentication service unavailable."])
            #expect(try await api.world.count("jobs") == 0)
        }
    }

    @Test func `R8: a route for creating answers GET as it is told to, after it knows who asks`() async throws {
        for isStrict in [true, false] {
            try await APIWorld.with(settings: { $0.isStrict = isStrict }) { api in
                for route in Self.routes {
                    let answer = try await api.call("GET", route)
                    if isStrict {
                        #expect(answer.status == 405 && answer.json == ["detail": "Method \"GET\" not allowed."])
                    } else {
                        #expect(answer.status == 200 && answer.json["jobs"] == [])
                    }
                    #expect(try await api.call("GET", route, scopes: nil).status == 403)
                    let put = try await api.call("PUT", route)
                    #expect(put.status == 405 && put.json == ["detail": "Method \"PUT\" not allowed."])
                    let head = try await api.call("HEAD", route)
                    #expect(head.status == (isStrict ? 405 : 200) && head.bytes.isEmpty)
                }
            }
        }
    }

    @Test func `R9: all wrong fields are told at once, in the words of old`() async throws {
        try await APIWorld.with { api in
            let blank: JSONValue = ["This field may not be blank."]
            let mismatch: JSONValue = ["This value does not match the required pattern."]
            for task in ["", "task_name=", "task_name=%20&task_name="] {
                let answer = try await api.call("POST", "workers/\(Self.worker)/jobs?\(task)")
                #expect(answer.status == 400 && answer.json == ["task_name": blank])
            }
            for task in ["no-such", "ping%7Creboot", "ping%0A"] {
                let answer = try await api.call("POST", "workers/\(Self.worker)/jobs?task_name=\(task)")
                #expect(answer.status == 400 && answer.json == ["task_name": mismatch])
            }
            let all = try await api.call("POST", "jobs?task_name=no-such&worker_group=a.b&provisioner_id=a%20b")
            #expect(all.status == 400)
            #expect(
                all.json == [
                    "task_name": mismatch, "tc_worker_id": ["This field is required."], "worker_group": mismatch,
                    "provisioner_id": mismatch,
                ]
            )
            // The last of repeated options counts.
            #expect(try await api.call("POST", "workers/w/jobs?task_name=reboot&task_name=ping").status == 201)
        }
    }

    @Test func `R10: names of workers are kept in lower case, and odd ones lead nowhere`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let upper = try await api.call("POST", "workers/T-Linux64-MS-001/jobs?task_name=reboot")
            #expect(upper.status == 201 && upper.json["worker_id"]?.string == Self.worker)
            for id in [String(repeating: "a", count: 129), "a.b", "a%2Fb", "%E2%91%A0"] {
                #expect(try await api.call("POST", "workers/\(id)/jobs?task_name=ping").status == 404, "\(id)")
            }
            #expect(try await api.call("POST", "workers/\(Self.worker)/jobs/?task_name=ping").status == 404)
            #expect(try await api.call("POST", "jobs/?task_name=ping&tc_worker_id=w").status == 404)
            let long = String(repeating: "a", count: 128)
            #expect(try await api.call("POST", "workers/\(long)/jobs?task_name=ping").status == 201)
            let dash = try await api.call("POST", "workers/-f/jobs?task_name=ping")
            #expect(dash.status == 400 && dash.json["worker_id"] != nil)
        }
    }

    private static let managed = try? RegularExpression("^.*(MS|ms|yosemite)-.*")

    @Test func `R11: unmanaged hosts are refused, except to be looked at`() async throws {
        for isAllowed in [true, false] {
            try await APIWorld.with(settings: {
                $0.validWorker = Self.managed
                $0.allowsUnknownWorkers = isAllowed
            }) { api in
                let reboot = try await api.call("POST", "workers/laptop/jobs?task_name=reboot")
                #expect(reboot.status == 404 && reboot.json == "Not a managed host.")
                let ping = try await api.call("POST", "workers/laptop/jobs?task_name=ping")
                #expect(ping.status == (isAllowed ? 201 : 404))
                try await api.managed()
                #expect(try await api.call("POST", "workers/\(Self.worker)/jobs?task_name=reboot").status == 201)
            }
        }
    }

    @Test func `R12: a client that says no origin is served`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let answer = try await api.call("POST", Self.routes[2])
            #expect(answer.status == 201 && answer.json["http_origin"] == .null)
        }
    }

    @Test func `R13: unknown workers and workers without a machine are told apart`() async throws {
        try await APIWorld.with { api in
            let unknown = try await api.call("POST", "workers/nobody/jobs?task_name=reboot")
            #expect(unknown.status == 404 && unknown.json == ["tc_worker_id": "TC worker with that ID not found."])
            _ = try await api.world.pool.execute("insert into roller.tc_workers (worker_id) values ('ghost')")
            let ghost = try await api.call("POST", "workers/ghost/jobs?task_name=reboot")
            #expect(ghost.status == 404)
            #expect(ghost.json == ["tc_worker_id": "Not managing hardware running that TC worker."])
        }
    }

    @Test func `R14: the signature is checked for the address the client used, if a trusted proxy tells it`()
        async throws
    {
        let target = "/api/v1/workers/W%2D1/jobs?task_name=ping&worker_group=%6ddc1&a=b+c"
        try await APIWorld.with(settings: { $0.trust = .networks([AddressRange("127.0.0.0/8")].compactMap { $0 }) }) {
            api in
            let header = try api.signature("POST", target, scopes: ["*"], host: "roller.example", port: 443)
            let answer = try await api.call(
                "POST",
                String(target.dropFirst("/api/v1/".count)),
                scopes: nil,
                headers: [
                    "Authorization": header, "Host": "Roller.example:8443", "X-Forwarded-Proto": "https",
                    "X-Forwarded-For": "198.51.100.1, 203.0.113.7, 127.0.0.9",
                ]
            )
            #expect(answer.status == 201)
            let asked = try #require(api.auth.requests.first)
            #expect(asked.host == "roller.example" && asked.port == 443 && asked.resource == target)
            #expect(asked.method == "post" && asked.sourceIP == "203.0.113.7")
        }
        try await APIWorld.with { api in
            let header = try api.signature("POST", target, scopes: ["*"], host: "roller.example", port: 443)
            let answer = try await api.call(
                "POST",
                String(target.dropFirst("/api/v1/".count)),
                scopes: nil,
                headers: [
                    "Authorization": header, "Host": "roller.example:8000", "X-Forwarded-Proto": "https",
                    "X-Forwarded-For": "203.0.113.7",
                ]
            )
            #expect(answer.status == 403)
            let asked = try #require(api.auth.requests.first)
            #expect(asked.port == 8000 && asked.sourceIP == "127.0.0.1")
        }
    }

    @Test func `R19: the sixty-first request within a minute is told when to come again`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            // Fifty-seven came just now.
            try await api.world.pool.execute(
                """
                insert into roller.rate_windows (key, started, count)
                values (\("client:" + APIWorld.sheriff), clock_timestamp(), 57)
                """
            )
            for index in 57..<60 {
                let answer = try await api.call("POST", "workers/w\(index)/jobs?task_name=ping", scopes: ["ping"])
                #expect(answer.status == 201)
            }
            let late = try await api.call("POST", "workers/w60/jobs?task_name=ping", scopes: ["ping"])
            #expect(late.status == 429)
            let seconds = try #require(late.headers["Retry-After"].flatMap { Int($0) })
            #expect((1...60).contains(seconds))
            #expect(
                late.json == ["detail": .string("Request was throttled. Expected available in \(seconds) seconds.")]
            )
            #expect(try await api.world.count("jobs") == 3)
            // Others, and those who may, are not held up.
            #expect(try await api.call("POST", "workers/x/jobs?task_name=ping", as: "another").status == 201)
            let may = ["ping", "override"]
            #expect(try await api.call("POST", "workers/y/jobs?task_name=ping", scopes: may).status == 201)
        }
    }

    @Test func `one machine is not hit more often than the limit`() async throws {
        try await APIWorld.with(settings: { $0.limits = JobLimits(perMachineAndHour: 2) }) { api in
            try await api.managed()
            let route = "workers/\(Self.worker)/jobs?task_name=reboot"
            for _ in 0..<2 {
                let answer = try await api.call("POST", route, scopes: ["reboot"])
                #expect(answer.status == 201)
                _ = try await api.world.jobs.cancel(answer.json["task_id"]?.string ?? "", by: "test")
            }
            #expect(try await api.call("POST", route, scopes: ["reboot"]).status == 429)
            #expect(try await api.call("POST", route + "&dry_run=1", scopes: ["reboot"]).status == 201)
        }
    }

    @Test func `R18: fifty requests for one reboot are one job, or one and forty-nine refusals`() async throws {
        for policy in [DuplicatePolicy.join, .reject] {
            try await APIWorld.with(settings: { $0.duplicates = policy }) { api in
                try await api.managed()
                let answers = try await withThrowingTaskGroup(of: APIWorld.Answer.self) { group in
                    for _ in 0..<50 {
                        group.addTask { try await api.call("POST", "workers/\(Self.worker)/jobs?task_name=reboot") }
                    }
                    return try await group.reduce(into: [APIWorld.Answer]()) { $0.append($1) }
                }
                #expect(answers.filter { $0.status == 201 }.count == 1)
                #expect(answers.filter { $0.status == (policy == .join ? 200 : 409) }.count == 49)
                #expect(Set(answers.compactMap { $0.json["task_id"]?.string }).count == 1)
                let second = try #require(answers.first { $0.status != 201 })
                if policy == .join {
                    #expect(second.headers["X-Roller-Duplicate"] == "1")
                } else {
                    let text = "Task already scheduled for that TC worker's machine."
                    #expect(second.json["task_name"]?.string == text)
                }
                #expect(try await api.world.count("jobs") == 1)
            }
        }
    }

    @Test func `R18: the same key is the same job, even when that is over`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let key = ["Idempotency-Key": "click-1"]
            let route = "workers/\(Self.worker)/jobs?task_name=reboot"
            let first = try await api.call("POST", route, headers: key)
            let id = try #require(first.json["task_id"]?.string)
            try await api.world.claim(id, fence: 1)
            _ = try await api.world.jobs.finish(id, fence: 1, JobEnd(.succeeded, summary: "rebooted"))
            let again = try await api.call("POST", route, headers: key)
            #expect(again.status == 200 && again.json["task_id"]?.string == id && again.json["status"] == "COMPLETE")
            let other = try await api.call("POST", "workers/\(Self.worker)/jobs?task_name=ping", headers: key)
            #expect(other.status == 409)
            #expect(try await api.call("POST", route, as: "another", headers: key).json["task_id"]?.string != id)
            let without = try await api.call("POST", route)
            #expect(without.json["task_id"]?.string != id)
        }
    }

    @Test func `R63: names that could be commands or options start nothing`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let odd = [
                "x%3Bid", "%24(id)", "%60id%60", "-f", "%00", "x%0Aid", "%D9%A1%D9%A2", "--help", "..", "a%20b", "%ff",
                "%zz",
            ]
            for id in odd {
                for route in ["jobs?task_name=ping&tc_worker_id=\(id)", "workers/\(id)/jobs?task_name=ping"] {
                    let answer = try await api.call("POST", route)
                    #expect((400..<500).contains(answer.status), "\(route): \(answer.status)")
                }
            }
            #expect(try await api.world.count("jobs") == 0)
        }
    }

    @Test func `machines in maintenance are left alone unless somebody insists`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let route = "workers/\(Self.worker)/jobs?task_name="
            let patch: JSONValue = ["state": "maintenance", "state_reason": "new disk"]
            #expect(try await api.send("PATCH", "machines/\(Self.worker)", patch).status == 200)
            let refused = try await api.call("POST", route + "reboot", scopes: ["reboot"])
            #expect(refused.status == 409 && refused.json == ["detail": "Machine is in maintenance: new disk"])
            #expect(try await api.call("POST", route + "ping", scopes: ["ping"]).status == 201)
            #expect(try await api.call("POST", route + "reboot", scopes: ["reboot", "override"]).status == 201)
            #expect(try await api.send("PATCH", "machines/\(Self.worker)", ["state": "active"]).status == 200)
            let window: JSONValue = [
                "machine": .string(Self.worker), "ends": "3000-01-01T00:00:00Z", "reason": "freeze",
            ]
            let opened = try await api.send("POST", "windows", window)
            #expect(opened.status == 201)
            #expect(try await api.call("POST", route + "ipmi_reset", scopes: ["ipmi_reset"]).status == 409)
            let id = try #require(opened.json["id"]?.int)
            #expect(try await api.call("DELETE", "windows/\(id)").status == 204)
            let lacking = try await api.call("POST", route + "ipmi_reset", scopes: ["ipmi_reset"])
            #expect(lacking.status == 400)
            #expect(lacking.json == ["task_name": ["No ipmi control is configured for this machine."]])
        }
    }

    @Test func `parameters are checked, and dangerous work wants the machine's name`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let route = "workers/\(Self.worker)/jobs?task_name=reimage"
            #expect(try await api.call("POST", route).json["confirm"] != nil)
            #expect(try await api.call("POST", route + "&confirm=another").status == 400)
            let odd = try await api.call("POST", route + "&confirm=\(Self.worker)&timeout=soon&mode=quick")
            #expect(odd.status == 400 && odd.json["timeout"] != nil && odd.json["mode"] != nil)
            let good = try await api.call("POST", route + "&confirm=\(Self.worker)&timeout=60&unknown=1")
            #expect(good.status == 201)
            let job = try #require(try await api.world.jobs.job(good.json["task_id"]?.string ?? ""))
            #expect(job.parameters == ["timeout": 60])
        }
    }

    @Test func `R66: a dry run is a job that says so, and is in the audit log`() async throws {
        try await APIWorld.with { api in
            try await api.managed()
            let answer = try await api.call("POST", "workers/\(Self.worker)/jobs?task_name=reboot&dry_run=1")
            let job = try #require(try await api.world.jobs.job(answer.json["task_id"]?.string ?? ""))
            #expect(job.isDryRun)
            let entry = try #require(
                try await AuditStore(pool: api.world.pool).list(object: "job:\(job.id)", before: nil, limit: 1).first
            )
            #expect(entry.entry.after?["dryRun"] == true && entry.entry.clientID == APIWorld.sheriff)
        }
    }

    @Test func `hosts that are not ours and clients that want something else are refused first`() async throws {
        try await APIWorld.with(settings: { $0.allowedHosts = [".example.com", "127.0.0.1"] }) { api in
            let foreign = try await api.call("POST", Self.routes[0], scopes: nil, headers: ["Host": "evil.example"])
            #expect(foreign.status == 400 && foreign.json == ["detail": "Bad Request (400)"])
            let own = try await api.call(
                "POST",
                Self.routes[0],
                scopes: nil,
                headers: ["Host": "Roller.Example.com:99"]
            )
            #expect(own.status == 403)
            let picture = try await api.call("POST", Self.routes[0], scopes: nil, headers: ["Accept": "image/png"])
            #expect(picture.status == 406)
            #expect(picture.json == ["detail": "Could not satisfy the request Accept header."])
            #expect(api.auth.requests.count == 1)
        }
    }
}
