// SPDX-License-Identifier: MPL-2.0

import JSON
import WorkerKit

/// What the queue tells in few answers about many tasks.
extension ChainVerifier {
    /// What was asked for before anybody knew whether it would be needed; nothing of it has been checked.
    struct EarlyAnswers: Sendable {
        var statuses: [String: JSONValue] = [:]
        var small = SmallArtifacts.none
        var asked: Set<SmallArtifacts.Name> = []
    }

    /// Asks for what the first links of nearly every chain lead to, while the chain is being built: all that takes is their names.
    func early(_ head: ChainTask, _ includingHead: Bool) async -> EarlyAnswers {
        guard let first = try? head.dependencies() else { return EarlyAnswers() }
        var seen: Set<String> = includingHead ? [head.taskID] : []
        var ids = includingHead ? [head.taskID] : []
        for dependency in first where seen.insert(dependency.taskID).inserted { ids.append(dependency.taskID) }
        var inputs = ChainOfTrustArtifact.ofParents.map { SmallArtifacts.Name(head.parentID, $0) }
        for entry in (try? TaskPayload(task: head.definition))?.upstream ?? [] {
            inputs += entry.paths.filter { !$0.contains("*") }.map { SmallArtifacts.Name(entry.taskID, $0) }
        }
        let files = statementNames(ids)
        async let statuses = statuses(ids)
        async let statements = small(files)
        async let others = small(inputs)
        var answers = EarlyAnswers(statuses: await statuses, small: await statements, asked: Set(files).union(inputs))
        answers.small.formUnion(await others)
        return answers
    }

    func statuses(_ taskIDs: [String]) async -> [String: JSONValue] {
        policy.isStrict ? await many(taskIDs, ["tasks", "status"], "statuses", "status") : [:]
    }

    func statementNames(_ taskIDs: [String]) -> [SmallArtifacts.Name] {
        var names = taskIDs.map { SmallArtifacts.Name($0, ChainOfTrustArtifact.name) }
        if policy.checksSignatures {
            names += taskIDs.map { SmallArtifacts.Name($0, ChainOfTrustArtifact.signatureName) }
        }
        return names
    }

    /// Asks for those artifacts that nobody has asked for yet.
    func complete(_ answers: inout EarlyAnswers, _ names: [SmallArtifacts.Name]) async {
        let rest = names.filter { !answers.asked.contains($0) }
        answers.asked.formUnion(rest)
        answers.small.formUnion(await small(rest))
    }

    /// What the queue hands out together, so that not every small file costs a request of its own.
    private func small(_ names: [SmallArtifacts.Name]) async -> SmallArtifacts {
        let found = await downloader.small(names)
        if !names.isEmpty { log.debug("\(found.count) of \(names.count) artifacts came together") }
        return found
    }

    /// What the queue says about many tasks at once, by task; what it leaves out is asked for one by one.
    func many(
        _ taskIDs: [String],
        _ path: [String],
        _ list: String,
        _ member: String
    ) async -> [String: JSONValue] {
        var found: [String: JSONValue] = [:]
        guard taskIDs.count > 2 else { return found }
        for start in stride(from: 0, to: taskIDs.count, by: 100) {
            let body: JSONValue = ["taskIds": .init(Array(taskIDs[start..<min(start + 100, taskIDs.count)]))]
            var query: [(String, String)] = []
            repeat {
                do {
                    let page = try await client.call("queue", "POST", path, query: query, body: body, retry: .once)
                    for entry in page[list]?.array ?? [] {
                        guard let taskID = entry["taskId"]?.string, let value = entry[member] else { continue }
                        found[taskID] = value
                    }
                    query = page["continuationToken"]?.string.map { [("continuationToken", $0)] } ?? []
                } catch {
                    // Older queues have no such method.
                    log.debug("the queue does not tell about many tasks at once: \(error.status ?? 0) \(error.code)")
                    return found
                }
            } while !query.isEmpty
        }
        return found
    }
}
