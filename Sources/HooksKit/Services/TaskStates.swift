// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
package import TaskclusterClient

/// The present states of tasks, as the queue knows them.
package struct TaskStates {
    let client: TaskclusterClient

    package init(client: TaskclusterClient) {
        self.client = client
    }

    /// Asks for all tasks at once; those the queue does not know, or does not tell in time, are left out.
    ///
    /// Deployments whose queue cannot do that are asked for each task, a few at a time.
    package func states(of taskIDs: [String]) async -> [String: String] {
        guard !taskIDs.isEmpty else { return [:] }
        var states: [String: String] = [:]
        var token: String?
        repeat {
            do throws(TaskclusterError) {
                let page = try await client.call(
                    "queue",
                    "POST",
                    ["tasks", "status"],
                    query: token.map { [("continuationToken", $0)] } ?? [],
                    body: ["taskIds": JSONValue(taskIDs)],
                    retry: Self.once,
                    timeout: .seconds(5)
                )
                for entry in page["statuses"]?.array ?? [] {
                    guard let taskID = entry["taskId"]?.string else { continue }
                    states[taskID] = entry["status"]?["state"]?.string
                }
                token = page["continuationToken"]?.string
            } catch {
                return error.status == 404 ? await statesOneByOne(taskIDs) : states
            }
        } while token != nil
        return states
    }

    private static let once = RetryPolicy(attempts: 1, base: .zero, maximum: .zero)

    private func statesOneByOne(_ taskIDs: [String]) async -> [String: String] {
        let client = client
        return await withTaskGroup(of: (String, String?).self) { group in
            var waiting = taskIDs.makeIterator()
            var states: [String: String] = [:]
            func addNext() {
                guard let taskID = waiting.next() else { return }
                group.addTask {
                    let status = try? await client.call(
                        "queue",
                        "GET",
                        ["task", taskID, "status"],
                        retry: Self.once,
                        timeout: .seconds(5)
                    )
                    return (taskID, status?["status"]?["state"]?.string)
                }
            }
            for _ in 0..<16 { addNext() }
            while let (taskID, state) = await group.next() {
                states[taskID] = state
                addNext()
            }
            return states
        }
    }
}
