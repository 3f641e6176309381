// SPDX-License-Identifier: MPL-2.0
import Schedules
import Testing

@testable import LocalTaskclusterKit

struct TransitionTests {
    let start = Timestamp(milliseconds: 1_700_000_000_000)
    let worker = WorkerName(group: "g", id: "w")

    func status(retries: Int = 5) -> TaskStatus {
        TaskStatus(
            taskID: "culP5y7RSiioJ8k1HASb2A",
            taskQueueID: "local/wt",
            schedulerID: "-",
            projectID: "none",
            taskGroupID: "culP5y7RSiioJ8k1HASb2A",
            priority: .lowest,
            deadline: start + .seconds(3600),
            expires: start + .seconds(7200),
            retries: retries
        )
    }

    func running(retries: Int = 5) throws -> TaskStatus {
        var status = status(retries: retries)
        _ = try status.schedule(now: start)
        _ = try status.claim(run: 0, worker: worker, takenUntil: start + .seconds(3), now: start)
        return status
    }

    @Test func `Q47: an expired claim ends the run and starts the next`() throws {
        var status = try running()
        let expired = status.expireClaim(run: 0, takenUntil: start + .seconds(3), now: start + .seconds(3))
        let transition = try #require(expired)
        #expect(status.runs[0].reasonResolved == .claimExpired)
        #expect(status.runs[1].reasonCreated == .retry)
        #expect(status.retriesLeft == 4)
        #expect(transition.events == [.exception(run: 0, withWorker: true), .pending(run: 1)])
        #expect(!transition.isFinal)
    }

    @Test func `Q48: the old worker is refused after its claim expired`() throws {
        var status = try running()
        _ = status.expireClaim(run: 0, takenUntil: start + .seconds(3), now: start + .seconds(3))
        #expect(throws: TransitionRefusal.self) { try status.report(run: 0, .completed, now: start + .seconds(4)) }
        #expect(throws: TransitionRefusal.self) {
            try status.reclaim(run: 0, takenUntil: start + .seconds(9), now: start + .seconds(4))
        }
    }

    @Test func `Q50: without retries an expired claim is final`() throws {
        var status = try running(retries: 0)
        let expired = status.expireClaim(run: 0, takenUntil: start + .seconds(3), now: start + .seconds(3))
        let transition = try #require(expired)
        #expect(transition.isFinal)
        #expect(status.runs.count == 1)
    }

    @Test func `Q51: two retries make three runs and no more`() throws {
        var status = status(retries: 2)
        _ = try status.schedule(now: start)
        for run in 0...2 {
            _ = try status.claim(run: run, worker: worker, takenUntil: start + .seconds(3), now: start)
            _ = status.expireClaim(run: run, takenUntil: start + .seconds(3), now: start + .seconds(3))
        }
        #expect(status.runs.count == 3)
        #expect(status.state == "exception")
    }

    @Test func `Q52: a reclaimed run does not expire by an old record`() throws {
        var status = try running()
        _ = try status.reclaim(run: 0, takenUntil: start + .seconds(5), now: start + .seconds(2))
        let expired = status.expireClaim(run: 0, takenUntil: start + .seconds(3), now: start + .seconds(4))
        #expect(expired == nil)
        #expect(status.state == "running")
    }

    @Test func `Q53: a report may be repeated but not contradicted`() throws {
        var status = try running()
        _ = try status.report(run: 0, .completed, now: start)
        let again = try status.report(run: 0, .completed, now: start)
        #expect(!again.isChange)
        #expect(again.events == [.completed(run: 0)])
        #expect(throws: TransitionRefusal.self) { try status.report(run: 0, .failed, now: start) }
        #expect(throws: TransitionRefusal.self) { try status.report(run: 7, .failed, now: start) }
    }

    @Test func `Q56: only some exceptions lead to a retry`() throws {
        for (resolution, next) in [
            (RunResolution.workerShutdown, RunCreation?.some(.retry)), (.intermittentTask, .taskRetry),
            (.malformedPayload, nil), (.internalError, nil),
        ] {
            var status = try running()
            _ = try status.report(run: 0, resolution, now: start)
            let created = status.runs.count == 2 ? status.runs[1].reasonCreated : nil
            #expect(created == next)
        }
    }

    @Test func `Q57: a repeated exception makes no second retry`() throws {
        var status = try running()
        _ = try status.report(run: 0, .workerShutdown, now: start)
        let again = try status.report(run: 0, .workerShutdown, now: start)
        #expect(!again.isChange)
        #expect(status.runs.count == 2)
    }

    @Test func `Q58: a cancelled run keeps its worker and refuses it`() throws {
        var status = try running()
        let transition = try status.cancel(now: start)
        #expect(transition.released == 0)
        #expect(status.runs[0].worker == worker)
        #expect(throws: TransitionRefusal.self) { try status.report(run: 0, .failed, now: start) }
    }

    @Test func `Q58: a cancelled run takes artifacts for twenty-five minutes`() throws {
        var status = try running()
        _ = try status.cancel(now: start)
        let artifact = Artifact(
            taskID: status.taskID,
            runID: 0,
            name: "public/log",
            content: .blob,
            contentType: "a/b",
            expires: status.expires
        )
        try ArtifactRules.check(artifact, of: status, now: start + .seconds(24 * 60))
        #expect(throws: QueueProblem.self) {
            try ArtifactRules.check(artifact, of: status, now: start + .seconds(25 * 60))
        }
        var completed = try running()
        _ = try completed.report(run: 0, .completed, now: start)
        #expect(throws: QueueProblem.self) { try ArtifactRules.check(artifact, of: completed, now: start) }
    }

    @Test func `Q59: cancelling a resolved task changes nothing`() throws {
        var status = try running()
        _ = try status.report(run: 0, .completed, now: start)
        let repeated = try status.cancel(now: start)
        #expect(!repeated.isChange)
        #expect(status.state == "completed")
    }

    @Test func `Q60: an unscheduled task is cancelled with a run made for it`() throws {
        var status = status()
        _ = try status.cancel(now: start)
        #expect(status.runs.map(\.reasonCreated) == [.exception])
        let repeated = try status.schedule(now: start)
        #expect(!repeated.isChange)
        _ = try status.rerun(now: start)
        #expect(status.runs[1].state == .pending)
    }

    @Test func `Q61: a rerun gives the retries back`() throws {
        var status = try running(retries: 49)
        _ = try status.report(run: 0, .completed, now: start)
        _ = try status.rerun(now: start)
        #expect(status.retriesLeft == 48)
        let repeated = try status.rerun(now: start)
        #expect(!repeated.isChange)
        #expect(throws: TransitionRefusal.self) { try status.rerun(now: start + .seconds(3600)) }
    }

    @Test func `Q62: a task has at most fifty runs`() throws {
        var status = status()
        _ = try status.schedule(now: start)
        for run in 0..<50 {
            _ = try status.claim(run: run, worker: worker, takenUntil: start + .seconds(3), now: start)
            _ = try status.report(run: run, .failed, now: start)
            if run < 49 { _ = try status.rerun(now: start) }
        }
        #expect(throws: TransitionRefusal.self) { try status.rerun(now: start) }
    }

    @Test func `Q67: the deadline beats an expired claim`() throws {
        var status = try running()
        let late = start + .seconds(3600)
        let expired = status.expireClaim(run: 0, takenUntil: start + .seconds(3), now: late)
        #expect(expired == nil)
        let reached = status.reachDeadline(now: late)
        let transition = try #require(reached)
        #expect(transition.events == [.exception(run: 0, withWorker: false)])
        #expect(status.runs.map(\.reasonResolved) == [.deadlineExceeded])
    }

    @Test func `Q68: a completed task does not mind its deadline`() throws {
        var status = try running()
        _ = try status.report(run: 0, .completed, now: start)
        let reached = status.reachDeadline(now: start + .seconds(3600))
        #expect(reached == nil)
        #expect(status.runs.map(\.reasonResolved) == [.completed])
    }

    @Test func `a run survives being stored`() throws {
        let status = try running()
        #expect(status.runs.compactMap { TaskRun(json: $0.json) } == status.runs)
    }
}
