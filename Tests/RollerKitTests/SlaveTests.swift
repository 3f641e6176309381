// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import TestSupport
import Testing

@testable import RollerKit

/// The routes of the predecessor.
@Suite(.timeLimit(.minutes(5)))
struct SlaveTests {
    static let name = "t-linux64-ms-001"

    private func call(
        _ api: APIWorld,
        _ method: String,
        _ target: String,
        form: String? = nil,
        scopes: [String]? = ["*"]
    ) async throws -> HTTPResponse {
        var fields: HTTPHeaders = [:]
        if let scopes {
            fields["Authorization"] = try api.signature(method, target, scopes: scopes, as: APIWorld.sheriff)
        }
        if form != nil { fields["Content-Type"] = "application/x-www-form-urlencoded" }
        return try await api.curl.send(
            HTTPRequest(
                method: method,
                url: "http://127.0.0.1:\(api.port)\(target)",
                headers: fields,
                body: form.map { .bytes(Array($0.utf8)) } ?? .none,
                timeout: .seconds(90)
            )
        )
    }

    @Test func `nobody answers the predecessor's routes unless they are asked for`() async throws {
        try await APIWorld.with { api in
            for path in ["/slaves/\(Self.name)", "/results", "/slaves/\(Self.name)/actions/reboot"] {
                let answer = try await call(api, "GET", path)
                #expect(answer.status == 404, "\(path)")
            }
        }
    }

    @Test func `the predecessor's clients begin actions, wait for them and read what came of them`() async throws {
        try await APIWorld.with(settings: { $0.answersPredecessor = true }) { api in
            try await api.managed()
            let slave = "/slaves/\(Self.name)"
            let shown = try await call(api, "GET", slave)
            let machine = try shown.json()
            #expect(shown.status == 200 && machine["enabled"] == true && machine["ip"] == "127.0.0.1")
            #expect(try await call(api, "GET", "/slaves/nobody").status == 404)

            let begun = try await call(api, "POST", "\(slave)/actions/reboot", form: "waittime=0")
            let result = try begun.json()
            #expect(begun.status == 202 && result["state"] == 0 && result["start_timestamp"] == 0)
            let id = try #require(result["requestid"]?.string)
            try await api.world.claim(id, fence: 1)
            async let waited = call(api, "POST", "\(slave)/actions/reboot", form: "waittime=5")
            #expect(try await api.world.jobs.transition(id, fence: 1, to: .running))
            _ = try await api.world.jobs.finish(
                id,
                fence: 1,
                JobEnd(.succeeded, summary: "up", result: ["text": "rebooted"])
            )
            // Who joined waits for the same job, unless it was over before they asked.
            let done = try await waited
            #expect([200, 202].contains(done.status))
            let one = try await call(api, "GET", "\(slave)/actions/reboot?requestid=\(id)").json()
            #expect(one["state"] == 2 && one["text"] == "rebooted")
            #expect((one["finish_timestamp"]?.double ?? 0) >= (one["request_timestamp"]?.double ?? 1))
            let all = try await call(api, "GET", "\(slave)/actions/reboot").json()
            #expect(all["reboot"]?[id]?["state"] == 2)
            #expect(try await call(api, "GET", "/results").json()[Self.name]?["reboot"]?[id]?["state"] == 2)
        }
    }

    @Test func `disabling is a quarantine, and what made sense for build slaves only is said to be gone`() async throws
    {
        try await APIWorld.with(settings: { $0.answersPredecessor = true }) { api in
            try await api.managed()
            let slave = "/slaves/\(Self.name)/actions"
            let disabled = try await call(api, "POST", "\(slave)/disable", form: "reason=bad+disk&force=yes")
            #expect(disabled.status == 202)
            let job = try #require(try await api.world.jobs.job(disabled.json()["requestid"]?.string ?? ""))
            #expect(job.taskName == "quarantine" && job.parameters == ["reason": "bad disk"])
            #expect(try await call(api, "POST", "\(slave)/terminate").status == 501)
            #expect(try await call(api, "POST", "\(slave)/fly").status == 404)
            #expect(try await call(api, "POST", "\(slave)/reboot", form: "waittime=soon").status == 400)
            // The predecessor knew no credentials; we do.
            #expect(try await call(api, "POST", "\(slave)/reboot", scopes: nil).status == 403)
            #expect(try await call(api, "POST", "\(slave)/reboot", scopes: ["ping"]).status == 403)
            #expect(try await call(api, "GET", "/results", scopes: ["ping"]).status == 403)
        }
    }
}
