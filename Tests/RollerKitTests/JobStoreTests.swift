// SPDX-License-Identifier: MPL-2.0

import JSON
import Outbox
import Postgres
import TestSupport
import Testing

@testable import RollerKit

@Suite(.timeLimit(.minutes(2)))
struct JobStoreTests {
    @Test func `twenty clients that ask for the same reboot at once share one job`() async throws {
        try await RollerWorld.with { world in
            let machine = try await world.machine()
            let ids = try await withThrowingTaskGroup(of: String.self) { group in
                for index in 0..<20 {
                    group.addTask {
                        let new = NewJob(
                            .reboot,
                            machine: machine,
                            worker: WorkerName("W-1", group: "mdc1"),
                            clientID: "client-\(index)",
                            source: .api
                        )
                        switch try await world.jobs.create(new) {
                        case .created(let job), .joined(let job): return job.id
                        default: return "none"
                        }
                    }
                }
                return try await group.reduce(into: Set<String>()) { $0.insert($1) }
            }
            #expect(ids.count == 1)
            let job = try #require(try await world.jobs.job(ids.first ?? ""))
            #expect(job.state == .queued && job.worker.workerID == "w-1")
            let kinds = try await world.jobs.events(of: job.id).map(\.kind)
            #expect(kinds == ["queued"])
        }
    }

    @Test func `a claim that was overtaken changes nothing`() async throws {
        try await RollerWorld.with { world in
            let job = try await world.newJob(.reboot)
            try await world.claim(job.id, fence: 1)
            #expect(try await world.jobs.transition(job.id, fence: 1, to: .running))
            try await world.claim(job.id, fence: 2)
            #expect(try await world.jobs.transition(job.id, fence: 1, to: .verifying) == false)
            #expect(try await world.jobs.beginAttempt(job.id, fence: 1, method: "ssh", control: nil) == nil)
            #expect(try await world.jobs.finish(job.id, fence: 1, JobEnd(.succeeded, summary: "done")) == false)
            #expect(try await world.jobs.finish(job.id, fence: 2, JobEnd(.failed, summary: "not done")))
            #expect(try await world.jobs.job(job.id)?.status == .failed)
            #expect(try await world.jobs.finish(job.id, fence: 2, JobEnd(.succeeded, summary: "again")) == false)
        }
    }

    @Test func `the audit log refuses changes`() async throws {
        try await RollerWorld.with { world in
            _ = try await world.newJob(.reboot)
            await #expect(throws: PostgresError.self) {
                try await world.pool.execute("update roller.audit_log set client_id = 'somebody else'")
            }
            await #expect(throws: PostgresError.self) {
                try await world.pool.execute("delete from roller.audit_log")
            }
        }
    }
}

extension ActionDescription {
    static let reboot = ActionDescription(
        "reboot",
        title: "Reboot",
        summary: "Restarts it.",
        isDestructive: true,
        parameters: [
            "type": "object",
            "properties": ["mode": ["type": "string", "enum": ["escalate", "soft", "hard"]]],
        ]
    )
    static let ping = ActionDescription(
        "ping",
        title: "Ping",
        summary: "Looks whether it answers.",
        isDestructive: false,
        isReadOnly: true,
        needsMachine: false
    )
}
