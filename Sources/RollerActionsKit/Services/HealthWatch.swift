// SPDX-License-Identifier: MPL-2.0

package import RollerKit

/// Looks at every machine in service now and then, and takes out one that did not answer twice in a row.
///
/// Any number of workers do this: a second job for the same look joins the first, and only one of them takes a machine out.
/// It never puts one back: that is for those who know why it was silent.
package struct HealthWatch: Sendable {
    let jobs: JobStore
    let inventory: InventoryStore
    let dispatch: DispatchStore
    /// How far apart two looks at a machine are.
    let interval: Duration

    package init(jobs: JobStore, inventory: InventoryStore, dispatch: DispatchStore, interval: Duration) {
        self.jobs = jobs
        self.inventory = inventory
        self.dispatch = dispatch
        self.interval = interval
    }

    /// Does what there is to do now, for a few machines at a time.
    package func sweep() async throws {
        for id in try await dispatch.unseenMachines(for: interval) { try await look(id) }
        for silent in try await dispatch.silentMachines() {
            let text = "\(silent.name) did not answer twice and is in maintenance now"
            try await dispatch.takeOutOfService(silent) { connection in
                try await jobs.alert(silent.job, key: "health", text: text, on: connection)
            }
        }
    }

    private func look(_ id: String) async throws {
        guard let detail = try await inventory.machine(id: id) else { return }
        var new = NewJob(
            StatusAction().description,
            machine: id,
            worker: detail.workers.first ?? WorkerName(detail.machine.name),
            clientID: "roller",
            source: .schedule
        )
        new.priority = 10
        new.pool = detail.pool
        _ = try await jobs.create(new)
    }
}
