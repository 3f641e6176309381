// SPDX-License-Identifier: MPL-2.0

import JSON
import Logging
package import RollerKit

/// Clears up after workers that vanished, and after waits that took too long.
///
/// What only looked is done again. What may have touched a machine is never done again: the job is lost, and a job of
/// recovery gives the machine its power back where it may be missing.
package struct Reaper: Sendable {
    let jobs: JobStore
    let inventory: InventoryStore
    let dispatch: DispatchStore
    let lockWait: Duration
    /// How often a job that only looks is begun at most.
    private static let maximumClaims = 3

    package init(
        jobs: JobStore,
        inventory: InventoryStore,
        dispatch: DispatchStore,
        lockWait: Duration = .seconds(900)
    ) {
        self.jobs = jobs
        self.inventory = inventory
        self.dispatch = dispatch
        self.lockWait = lockWait
    }

    /// Does what there is to do now.
    package func sweep() async throws {
        for job in try await dispatch.takeOverSilent() { try await settle(job) }
        for (job, reason) in try await dispatch.overdue(lockWait: lockWait) {
            let summary = "nobody could begin the job in time (\(reason))"
            _ = try await jobs.finish(
                job.id,
                fence: job.fence,
                JobEnd(.expired, summary: summary, reason: reason, errorClass: "timeout")
            )
        }
        for orphan in try await dispatch.orphans() { try await recover(orphan) }
    }

    private func settle(_ job: Job) async throws {
        Logger.current.warning(
            "a worker vanished",
            metadata: ["job": "\(job.id)", "task": "\(job.taskName)", "runner": "\(job.runner ?? "")"]
        )
        // A claimed job was not begun. Recovery may be repeated: switching on twice does no harm.
        let mayRepeat = job.started == nil || job.isReadOnly || job.isDryRun || job.taskName == "recover"
        if mayRepeat, job.claims < Self.maximumClaims || job.taskName == "recover" {
            try await dispatch.requeue(job)
            return
        }
        let end = JobEnd(
            .lost,
            summary: "the worker vanished while it was at it; nothing is repeated",
            reason: "lost",
            errorClass: "lost"
        )
        _ = try await jobs.finish(job.id, fence: job.fence, end)
    }

    private func recover(_ orphan: DispatchStore.Orphan) async throws {
        guard let detail = try await inventory.machine(id: orphan.machine) else { return }
        var parameters: JSONObject = [:]
        if let controller = orphan.controller { parameters["controller"] = JSONValue(controller) }
        var new = NewJob(
            RecoverAction().description,
            parameters: parameters,
            machine: orphan.machine,
            worker: detail.workers.first ?? WorkerName(detail.machine.name),
            clientID: "roller",
            source: .recovery
        )
        new.priority = 100
        new.pool = detail.pool
        new.parent = orphan.job
        guard case .created(let job) = try await jobs.create(new) else { return }
        try await jobs.note(orphan.job, "recovery", ["jobId": JSONValue(job.id)])
    }
}
