// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Schedules
import Synchronization
import TaskclusterClient

/// Finds the packages that the tasks of a phase have signed, and remembers where they are.
final class PackageAddresses: Sendable {
    private enum Finding: Sendable {
        case address(String)
        /// There was none, and until this moment nobody asks again.
        case nothing(Timestamp)
    }

    /// How many groups of tasks are asked about for one reader, and how many are remembered.
    private static let limits = (asked: 20, remembered: 1000)
    /// How long a group without a package is left alone, and one that could not be asked about.
    private static let pauses = (empty: Duration.seconds(300), silent: Duration.seconds(15))

    private let client: TaskclusterClient
    private let known = Mutex<[String: Finding]>([:])

    init(client: TaskclusterClient) {
        self.client = client
    }

    /// The addresses of packages by the tasks whose groups they come from.
    ///
    /// Whoever reads waits for a few seconds at most: what cannot be found out now is told another time.
    func addresses(of tasks: [String], at now: Timestamp) async -> [String: String] {
        let unknown = known.withLock { known in
            tasks.filter { task in
                if case .nothing(let end)? = known[task] { return now >= end }
                return known[task] == nil
            }
        }
        await withDiscardingTaskGroup { group in
            for task in unknown.prefix(Self.limits.asked) {
                group.addTask { await self.lookUp(task, at: now) }
            }
        }
        return known.withLock { known in
            tasks.reduce(into: [:]) { found, task in
                if case .address(let address)? = known[task] { found[task] = address }
            }
        }
    }

    private func lookUp(_ task: String, at now: Timestamp) async {
        do {
            let address = try await withTimeout(.seconds(5)) { [self] in try await package(of: task) }
            remember(address.map { .address($0) } ?? .nothing(now + Self.pauses.empty), task)
        } catch {
            // Others who read meanwhile must not wait each for themselves.
            remember(.nothing(now + Self.pauses.silent), task)
            Logger.current.debug("no package found", metadata: ["task.id": "\(task)", "error": "\(error)"])
        }
    }

    private func remember(_ finding: Finding, _ task: String) {
        known.withLock { known in
            if known.count >= Self.limits.remembered { known = [:] }
            known[task] = finding
        }
    }

    /// The package that a task of the group has signed.
    private func package(of group: String) async throws -> String? {
        for member in try await client.queue.allTasks(ofGroup: group) {
            guard member["status"]?["state"] == "completed", member["task"]?["tags"]?["kind"] == "release-signing",
                let task = member["status"]?["taskId"]?.string
            else { continue }
            let artifacts = try await client.queue.listLatestArtifacts(task)["artifacts"]?.array ?? []
            let names = artifacts.compactMap { $0["name"]?.string }
            guard let name = names.first(where: { $0.hasSuffix(".xpi") }) else { continue }
            // Not signed by us: who may read a package that is not public is between the reader and the queue.
            return client.url("queue", ["task", task, "artifacts", name])
        }
        return nil
    }
}
