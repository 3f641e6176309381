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

    @Test func `requests that come together are stored together, and each gets its own answer`() async throws {
        try await RollerWorld.with { world in
            let (jobs, machine) = (world.jobs, try await world.machine())
            let limits = JobLimits(perClientAndMinute: 5, perMachineAndHour: 100)
            @Sendable func ask(_ client: String, _ name: String) async throws -> JobCreation {
                let worker = WorkerName(name)
                let new = NewJob(.ping, machine: nil, worker: worker, clientID: client, source: .api)
                return try await jobs.create(new, limits: limits)
            }
            let answers = try await withThrowingTaskGroup(of: (String, JobCreation).self) { group in
                for index in 0..<20 {
                    group.addTask { ("eager", try await ask("eager", "w-\(index)")) }
                    group.addTask { ("calm", try await ask("calm-\(index)", "v-\(index)")) }
                    group.addTask { ("same", try await ask("same-\(index)", "one-worker")) }
                }
                group.addTask {
                    // The database refuses it: nobody knows this machine.
                    let id = "00000000-0000-4000-8000-000000000000"
                    var new = NewJob(.ping, machine: id, worker: WorkerName("w"), clientID: "bad", source: .api)
                    new.machineRecord = try await InventoryStore(pool: world.pool).machine(id: machine)?.machine
                    await #expect(throws: PostgresError.self) { try await jobs.create(new) }
                    return ("bad", .throttled(seconds: 0))
                }
                return try await group.reduce(into: [String: [JobCreation]]()) { $0[$1.0, default: []].append($1.1) }
            }
            func created(_ kind: String) -> [Job] {
                (answers[kind] ?? []).compactMap { if case .created(let job) = $0 { job } else { nil } }
            }
            #expect(created("eager").count == 5)
            let throttled = (answers["eager"] ?? []).filter { if case .throttled = $0 { true } else { false } }
            #expect(throttled.count == 15)
            #expect(created("calm").count == 20)
            let joined = (answers["same"] ?? []).compactMap { if case .joined(let job) = $0 { job.id } else { nil } }
            #expect(created("same").count == 1 && Set(joined) == [created("same").first?.id] && joined.count == 19)
            #expect(try await world.count("jobs") == 26)
            #expect(try await world.count("job_events") == 26)
            #expect(try await world.count("audit_log") == 26)
            #expect(try await world.count("outbox") == 52)
        }
    }

    @Test func `jobs that end together keep what belongs to each, and an overtaken claim among them changes nothing`()
        async throws
    {
        try await RollerWorld.with { world in
            let jobs = world.jobs
            var held: [Job] = []
            for index in 0..<12 {
                let job = try await world.newJob(.ping)
                try await world.claim(job.id, fence: index == 7 ? 99 : index + 1)
                held.append(job)
            }
            let ids = held.map(\.id)
            let ours = try await withThrowingTaskGroup(of: (Int, Bool).self) { group in
                for (index, id) in ids.enumerated() {
                    group.addTask {
                        let isBegun = try await jobs.transition(id, fence: index + 1, to: .running)
                        let end = JobEnd(.succeeded, summary: "number \(index)", result: ["n": JSONValue(index)])
                        let isEnded = try await jobs.finish(id, fence: index + 1, end)
                        #expect(isBegun == isEnded)
                        return (index, isEnded)
                    }
                }
                return try await group.reduce(into: [Int: Bool]()) { $0[$1.0] = $1.1 }
            }
            for (index, id) in ids.enumerated() {
                #expect(ours[index] == (index != 7))
                let job = try #require(try await jobs.job(id))
                #expect(job.state == (index == 7 ? .claimed : .succeeded))
                #expect(job.result == (index == 7 ? nil : ["n": JSONValue(index)]))
                let lines = try await jobs.events(of: id)
                #expect(lines.map(\.kind) == (index == 7 ? ["queued"] : ["queued", "running", "succeeded"]))
                #expect(index == 7 || lines.last?.data["summary"] == .string("number \(index)"))
            }
            // Two messages of each request; two more of each job that went on.
            #expect(try await world.count("outbox") == 24 + 22)
        }
    }

    @Test func `a job whose row somebody keeps locked holds up no other one`() async throws {
        try await RollerWorld.with { world in
            var claims: [(id: String, fence: Int)] = []
            for index in 0..<3 {
                let new = NewJob(.ping, machine: nil, worker: WorkerName("w-\(index)"), clientID: "c", source: .api)
                guard case .created(let job) = try await world.jobs.create(new) else {
                    Issue.record("the job is not new")
                    return
                }
                try await world.pool.execute(
                    "update roller.jobs set state = 'claimed', fence = \(index + 1) where id = \(job.id)::uuid"
                )
                claims.append((job.id, index + 1))
            }
            let (jobs, pool, locked) = (world.jobs, world.pool, claims[0])
            let end = JobEnd(.succeeded, summary: "done")
            let slow = try await pool.transaction { connection in
                _ = try await connection.query("select from roller.jobs where id = \(locked.id)::uuid for update")
                let slow = Task { try await jobs.finish(locked.id, fence: locked.fence, end) }
                for other in claims.dropFirst() {
                    #expect(try await jobs.transition(other.id, fence: other.fence, to: .running))
                    #expect(try await jobs.finish(other.id, fence: other.fence, end))
                }
                #expect(try await jobs.job(locked.id)?.state == .claimed)
                return slow
            }
            // Its own patience is longer than that of those who wait behind it.
            #expect(try await slow.value)
            #expect(try await jobs.job(locked.id)?.state == .succeeded)
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
