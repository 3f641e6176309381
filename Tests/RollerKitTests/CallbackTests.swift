// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import TestSupport
import Testing

@testable import RollerKit

@Suite(.timeLimit(.minutes(5)))
struct CallbackTests {
    /// A job under way that expects to be called back, and the token for that.
    private func expecting(_ api: APIWorld) async throws -> (id: String, token: String) {
        try await api.managed()
        let answer = try await api.call("POST", "workers/t-linux64-ms-001/jobs?task_name=reboot")
        let id = try #require(answer.json["task_id"]?.string)
        try await api.world.claim(id, fence: 1)
        #expect(try await api.world.jobs.transition(id, fence: 1, to: .running))
        return (id, try #require(try await api.world.jobs.openCallback(id, fence: 1)))
    }

    @Test func `an installation tells by its token and nothing else that it has ended, and the first word counts`()
        async throws
    {
        try await APIWorld.with { api in
            let (id, token) = try await expecting(api)
            #expect(try await api.world.jobs.installationReport(id) == nil)
            let wrong = String(token.reversed())
            let other = JobID.make()
            for path in [
                "jobs/\(id)/callback", "jobs/\(id)/callback?token=\(wrong)", "jobs/\(other)/callback?token=\(token)",
            ] {
                #expect(try await api.call("POST", path, scopes: nil).status == 404, "\(path)")
                // Scopes do not stand for the token.
                #expect(try await api.call("POST", path).status == 404, "\(path)")
            }
            #expect(try await api.call("GET", "jobs/\(id)/callback?token=\(token)", scopes: nil).status == 405)
            let unclear = try await api.call(
                "POST",
                "jobs/\(id)/callback?token=\(token)",
                scopes: nil,
                body: (["status": "perhaps"] as JSONValue).bytes()
            )
            #expect(unclear.status == 400)
            #expect(try await api.world.jobs.installationReport(id) == nil)
            let report: JSONValue = ["status": "failed", "message": "no disk"]
            for body in [report.bytes(), nil] {
                let answer = try await api.call(
                    "POST",
                    "jobs/\(id)/callback?token=\(token)",
                    scopes: nil,
                    body: body
                )
                #expect(answer.status == 202 && answer.json == ["task_id": .string(id)])
            }
            let told = try await api.world.jobs.installationReport(id)
            #expect(told == JobStore.InstallationReport(isGood: false, message: "no disk"))
            // One line of history, one entry of the audit log, and the token in neither.
            let events = try await api.world.jobs.events(of: id)
            #expect(events.filter { $0.kind == "callback" }.count == 1)
            let audit = try await api.call("GET", "audit?object=job:\(id)")
            let verbs = audit.json["entries"]?.array?.compactMap { $0["verb"]?.string } ?? []
            #expect(verbs.filter { $0 == "job.callback" }.count == 1)
            let log = try await api.call("GET", "jobs/\(id)/log")
            #expect(!audit.text.contains(token) && !log.text.contains(token))
        }
    }

    @Test func `nobody is listened to once the job is over, and only its last claim may ask to be called`()
        async throws
    {
        try await APIWorld.with { api in
            let (id, token) = try await expecting(api)
            #expect(try await api.world.jobs.openCallback(id, fence: 0) == nil)
            let end = JobEnd(.failed, summary: "nobody called", reason: "timeout", errorClass: "timeout")
            #expect(try await api.world.jobs.finish(id, fence: 1, end))
            #expect(try await api.call("POST", "jobs/\(id)/callback?token=\(token)", scopes: nil).status == 409)
            #expect(try await api.world.jobs.openCallback(id, fence: 1) == nil)
            #expect(try await api.world.jobs.installationReport(id) == nil)
        }
    }

    @Test func `a hard reboot takes the place of a gentle one, at its next safe point, and of no other`() async throws {
        try await APIWorld.with { api in
            for name in ["t-linux64-ms-001", "t-linux64-ms-002"] { try await api.managed(name) }
            func ask(_ name: String, _ query: String) async throws -> String {
                let answer = try await api.call("POST", "workers/\(name)/jobs?task_name=reboot\(query)")
                #expect(answer.status == 201, "\(answer.text)")
                return try #require(answer.json["task_id"]?.string)
            }
            let gentle = try await ask("t-linux64-ms-001", "&mode=soft")
            let usual = try await ask("t-linux64-ms-001", "")
            let elsewhere = try await ask("t-linux64-ms-002", "&mode=soft")
            try await api.world.claim(gentle, fence: 1)
            #expect(try await api.world.jobs.transition(gentle, fence: 1, to: .running))
            let trial = try await ask("t-linux64-ms-001", "&mode=hard&dry_run=1")
            #expect(try await api.world.jobs.job(gentle)?.isCancelRequested == false)
            let hard = try await ask("t-linux64-ms-001", "&mode=hard")
            let stopped = try #require(try await api.world.jobs.job(gentle))
            #expect(stopped.state == .running && stopped.isCancelRequested)
            let words = try await api.world.jobs.events(of: gentle).first { $0.kind == "superseded" }?.data["by"]
            #expect(words == .string(hard))
            for other in [usual, elsewhere, trial] {
                let job = try #require(try await api.world.jobs.job(other))
                #expect(job.state == .queued && !job.isCancelRequested, "\(other)")
            }
            // One that has not begun is over at once.
            let waiting = try await ask("t-linux64-ms-002", "&mode=hard")
            #expect(try await api.world.jobs.job(elsewhere)?.state == .canceled)
            #expect(try await api.world.jobs.job(waiting)?.state == .queued)
        }
    }
}
