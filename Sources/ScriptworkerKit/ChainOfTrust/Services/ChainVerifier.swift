// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import JSON
import TaskclusterClient
import WorkerKit

/// Verifies where a task comes from: finds what it rests on, checks what the workers of these tasks state and sign, fetches the task's
/// inputs on the way, and rebuilds from the tree what claims to come from it.
struct ChainVerifier: Sendable {
    let policy: ChainPolicy
    let client: TaskclusterClient
    let downloader: ArtifactDownloader
    let host: SourceHost
    /// The directory below which `cot/<taskId>/` is filled.
    let directory: String
    /// How many downloads go on at once.
    let concurrency: Int
    let schedule: TransferSchedule
    let log: ChainLog

    /// Verifies a task; throws ``ChainProblem``, or `CancellationError`.
    ///
    /// With `includingHead` the task itself is looked at as a finished one, too.
    func verify(
        _ taskID: String,
        _ definition: JSONValue,
        type: String,
        includingHead: Bool = false
    ) async throws -> Chain {
        do {
            let chain = try await verified(taskID, definition, type, includingHead)
            log.info("Good.")
            return chain
        } catch let problem as ChainProblem {
            log.critical(problem.description)
            throw problem
        }
    }

    private func verified(
        _ taskID: String,
        _ definition: JSONValue,
        _ type: String,
        _ includingHead: Bool
    ) async throws -> Chain {
        let head = try ChainTask(name: type, taskID: taskID, definition: definition, policy: policy)
        log.info("\(head.label) is a \(head.implementation.rawValue) task; parent \(head.parentID)")
        var chain = Chain(head: head)
        try await build(&chain, includingHead)
        log.info("the chain has \(chain.links.count) links")
        chain.statements = try await statements(chain.links)
        try await fetchInputs(chain)
        try await checkTypes(chain)
        try checkImplementations(chain)
        try await trace(chain)
        return chain
    }

    private func path(_ taskID: String, _ name: String) -> String { "\(directory)/cot/\(taskID)/\(name)" }

    // MARK: - Finding the links

    private func build(_ chain: inout Chain, _ includingHead: Bool) async throws {
        var seen: Set<String> = []
        var level = [chain.head]
        if includingHead {
            seen.insert(chain.head.taskID)
            try save(chain.head)
            chain.links.append(chain.head)
        }
        while !level.isEmpty {
            var wanted: [(name: String, taskID: String)] = []
            for task in level {
                guard task.name.count(where: { $0 == ":" }) <= policy.longestChain else {
                    throw ChainProblem("\(task.name): the chain is nested more than \(policy.longestChain) deep")
                }
                for dependency in try task.dependencies() where seen.insert(dependency.taskID).inserted {
                    wanted.append(dependency)
                }
            }
            let known = await many(wanted.map(\.taskID), ["tasks"], "tasks", "task")
            level = try await eachOf(wanted, limit: 32) { dependency in
                let definition =
                    if let found = known[dependency.taskID] { found } else {
                        try await definition(of: dependency.taskID)
                    }
                let task = try ChainTask(
                    name: dependency.name,
                    taskID: dependency.taskID,
                    definition: definition,
                    policy: policy
                )
                try save(task)
                log.debug("found \(task.label), a \(task.implementation.rawValue) task of \(task.pool)")
                return task
            }
            chain.links += level
        }
    }

    private func save(_ task: ChainTask) throws {
        try TaskDirectories.make("\(directory)/cot/\(task.taskID)")
        try FileText.write(task.definition.bytes(.prettySorted), to: path(task.taskID, "task.json"))
    }

    /// What the queue says about many tasks at once, by task; what it leaves out is asked for one by one.
    private func many(
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

    private func definition(of taskID: String) async throws -> JSONValue { try await answer(["task", taskID], taskID) }

    /// An answer of the queue; what it refuses is final, what it cannot answer now is asked again.
    private func answer(_ path: [String], _ taskID: String) async throws -> JSONValue {
        var attempt = 1
        while true {
            do {
                return try await client.call("queue", "GET", path)
            } catch {
                try Task.checkCancellation()
                if let status = error.status, (400..<500).contains(status), status != 408, status != 429 {
                    throw ChainProblem("the queue does not tell about the task \(taskID): \(status) \(error.code)")
                }
                attempt += 1
                guard attempt <= schedule.attempts else {
                    throw ChainProblem.unreachable("the queue could not tell about the task \(taskID): \(error)")
                }
                try await Task.sleep(for: schedule.pause(before: attempt))
            }
        }
    }

    // MARK: - Statements

    private func statements(_ links: [ChainTask]) async throws -> [String: ChainStatement] {
        let known =
            policy.isStrict ? await many(links.map(\.taskID), ["tasks", "status"], "statuses", "status") : [:]
        var names = links.map { SmallArtifacts.Name($0.taskID, ChainOfTrustArtifact.name) }
        if policy.checksSignatures {
            names += links.map { SmallArtifacts.Name($0.taskID, ChainOfTrustArtifact.signatureName) }
        }
        let small = await small(names)
        let pairs = try await eachOf(links, limit: concurrency) { link in
            (link.taskID, try await statement(of: link, known[link.taskID], small))
        }
        return Dictionary(uniqueKeysWithValues: pairs)
    }

    /// What the queue hands out together, so that not every small file costs a request of its own.
    private func small(_ names: [SmallArtifacts.Name]) async -> SmallArtifacts {
        let found = await downloader.small(names)
        log.debug("\(found.count) of \(names.count) artifacts came together")
        return found
    }

    private func statement(
        of link: ChainTask,
        _ status: JSONValue?,
        _ small: SmallArtifacts
    ) async throws -> ChainStatement {
        let place = path(link.taskID, ChainOfTrustArtifact.name)
        try TaskDirectories.make(path(link.taskID, "public"))
        try await fetch(ChainOfTrustArtifact.name, of: link, [:], small)
        let bytes = try FileText.bytes(place)
        var signer: String?
        if policy.checksSignatures {
            try await fetch(ChainOfTrustArtifact.signatureName, of: link, [:], small)
            let signature = try FileText.bytes(path(link.taskID, ChainOfTrustArtifact.signatureName))
            signer = try StatementSignature.check(bytes, signature, of: link, policy: policy)
            log.debug("\(link.label): signed with \(signer ?? "")")
        }
        let statement = try ChainStatement(bytes, about: link, signer: signer, policy: policy)
        if policy.isStrict {
            var status = status
            if status == nil {
                status = try await answer(["task", link.taskID, "status"], link.taskID)["status"]
            }
            let state = statement.runID.flatMap { $0 >= 0 ? status?["runs"]?[$0]?["state"]?.string : nil }
            guard state == "completed" else {
                throw ChainProblem(
                    "\(link.label): the statement is about run \(statement.runID ?? -1), which is "
                        + (state ?? "not a run of the task")
                )
            }
        }
        return statement
    }

    // MARK: - Inputs

    private struct Input: Sendable {
        var link: ChainTask
        var name: String
        var isOptional: Bool
    }

    private func fetchInputs(_ chain: Chain) async throws {
        let inputs = try await inputs(of: chain)
        let small = await small(inputs.map { SmallArtifacts.Name($0.link.taskID, $0.name) })
        _ = try await eachOf(inputs, limit: concurrency) { input in try await fetch(input, chain, small) }
    }

    private func inputs(of chain: Chain) async throws -> [Input] {
        var wanted: [String: [String: Bool]] = [:]
        for link in chain.links where link.isParent {
            wanted[link.taskID, default: [:]]["public/task-graph.json"] = false
            guard link.kind.name == "decision" else { continue }
            wanted[link.taskID, default: [:]]["public/actions.json"] = false
            wanted[link.taskID, default: [:]]["public/parameters.yml"] = false
        }
        let payload: TaskPayload
        do throws(TaskPayload.Problem) {
            payload = try TaskPayload(task: chain.head.definition)
        } catch {
            throw ChainProblem("\(chain.head.label): \(error)")
        }
        for entry in payload.upstream {
            for name in try await expanded(entry) {
                let isOptional = entry.isOptional || wanted[entry.taskID]?[name] ?? false
                wanted[entry.taskID, default: [:]][name] = isOptional
            }
        }
        return try wanted.sorted { $0.key < $1.key }.flatMap { taskID, names in
            let link = try chain.link(taskID)
            return names.sorted { $0.key < $1.key }.map { Input(link: link, name: $0.key, isOptional: $0.value) }
        }
    }

    private func expanded(_ entry: TaskPayload.Upstream) async throws -> [String] {
        guard entry.paths.contains(where: { $0.contains("*") }) else { return entry.paths }
        let names: [String]
        do {
            names = try await downloader.names(of: entry.taskID)
        } catch .interrupted {
            throw CancellationError()
        } catch .unreachable(let text, _) {
            throw ChainProblem.unreachable("cannot list the artifacts of \(entry.taskID): \(text)")
        } catch {
            throw ChainProblem("cannot list the artifacts of \(entry.taskID): \(error)")
        }
        return entry.paths.flatMap { path in
            guard path.contains("*") else { return [path] }
            let pattern = FileNamePattern(path)
            return names.filter { pattern.matches($0) && TaskPayload.isSafe($0) }
        }
    }

    private func fetch(_ input: Input, _ chain: Chain, _ small: SmallArtifacts) async throws {
        let (link, name) = (input.link, input.name)
        guard let statement = chain.statements[link.taskID] else { throw ChainProblem("\(link.label): no statement") }
        if input.isOptional, statement.json["artifacts"]?[name] == nil {
            return log.warning("\(link.label): optional \(name) is not among the artifacts of its statement; skipped")
        }
        let digests = try statement.digests(of: name, link, policy)
        if digests.isEmpty { log.warning("\(link.label): nothing verifies \(name)") }
        do {
            try await fetch(name, of: link, digests, small, absent: { Absent(description: $0) })
            log.info("\(link.label): \(name) is as stated")
        } catch let absent as Absent {
            guard input.isOptional else { throw ChainProblem("\(link.label): \(absent)") }
            log.warning("\(link.label): optional \(name) is not there: \(absent)")
        } catch let problem as ChainProblem where input.isOptional && !policy.isStrict {
            log.warning("\(link.label): optional \(name) is left out: \(problem)")
        }
    }

    private struct Absent: Error, CustomStringConvertible { let description: String }

    private func fetch(
        _ name: String,
        of link: ChainTask,
        _ digests: [String: String],
        _ small: SmallArtifacts,
        absent: (String) -> any Error = { ChainProblem($0) }
    ) async throws {
        let place = path(link.taskID, name)
        try TaskDirectories.make(String(place[..<(place.lastIndex(of: "/") ?? place.endIndex)]))
        do throws(ArtifactDownloader.Failure) {
            try await downloader.download(name, of: link.taskID, to: place, digests: digests, among: small)
        } catch {
            let text = "\(link.label): \(error)"
            switch error {
            case .absent: throw absent(text)
            case .mismatch, .forbidden: throw ChainProblem(text)
            case .unreachable: throw ChainProblem.unreachable(text)
            case .storage: throw ChainProblem([text], code: .internalError)
            case .interrupted: throw CancellationError()
            }
        }
    }

    // MARK: - Checks

    private func checkTypes(_ chain: Chain) async throws {
        let rules = WorkerRules(chain: chain, policy: policy)
        var complaints = ChainComplaints()
        for task in chain.all { complaints.collect { () throws(ChainProblem) in try rules.checkType(task) } }
        try complaints.end()
        _ = try await eachOf(chain.all.filter(\.isParent), limit: 4) { parent in
            try await check(parent: parent, chain)
        }
    }

    private func check(parent: ChainTask, _ chain: Chain) async throws {
        // A decision task that is yet to run has announced nothing.
        if chain.links.contains(where: { $0.taskID == parent.taskID }) {
            let graph = try json(parent, "public/task-graph.json")
            var complaints = ChainComplaints()
            for task in chain.all where task.parentID == parent.taskID && task.taskID != parent.taskID && !task.isParent
            {
                complaints.collect { () throws(ChainProblem) in
                    try GraphMatch.check(task, against: graph, of: parent, isStrict: policy.isStrict)
                }
            }
            try complaints.end()
        }
        try await rebuild(parent, chain)
        log.info("\(parent.label): its definition is the one in its tree")
    }

    private func json(_ link: ChainTask, _ name: String) throws -> JSONValue {
        do {
            return try JSONValue(parsing: FileText.bytes(path(link.taskID, name)))
        } catch {
            throw ChainProblem("\(link.label): \(name) cannot be read: \(error)")
        }
    }

    private func rebuild(_ parent: ChainTask, _ chain: Chain) async throws {
        let decision =
            parent.decisionID == chain.head.taskID ? chain.head : try chain.link(parent.decisionID)
        guard let tasksFor = parent.tasksFor, policy.tasksFor.contains(tasksFor) else {
            throw ChainProblem("\(parent.label): tasks_for is \(parent.tasksFor ?? "missing"), which is not allowed")
        }
        guard let repository = SourceTrace.repository(of: decision, prefix: policy.environmentPrefix),
            let revision = decision.environment("\(policy.environmentPrefix)_HEAD_REV")
        else {
            throw ChainProblem(
                "\(decision.label): its environment does not name repository and revision "
                    + "(\(policy.environmentPrefix)_HEAD_REPOSITORY, \(policy.environmentPrefix)_HEAD_REV)"
            )
        }
        let gatherer = RebuildContext(
            policy: policy,
            host: host,
            parent: parent,
            decision: decision,
            parametersPath: path(decision.taskID, "public/parameters.yml")
        )
        async let fetched = host.template(repository, revision, of: decision)
        var context = try await gatherer.context(tasksFor)
        var template = try await fetched
        let isAction = tasksFor == "action" || tasksFor == "pr-action"
        if isAction {
            let action = try DefinitionMatch.action(json(decision, "public/actions.json"), of: parent)
            template = DefinitionMatch.hookTemplate(template, action, tasksFor: tasksFor)
            context = try DefinitionMatch.hookContext(action, context, parent: parent)
        }
        var tasks = try DefinitionMatch.rebuilt(template, context: context, parent: parent, decision: decision)
        if isAction {
            tasks = try DefinitionMatch.settleActionGroup(tasks, parent: parent, decision: decision)
        }
        try DefinitionMatch.check(tasks, against: parent)
    }

    private func checkImplementations(_ chain: Chain) throws(ChainProblem) {
        let rules = WorkerRules(chain: chain, policy: policy)
        var complaints = ChainComplaints()
        for task in chain.all { complaints.collect { () throws(ChainProblem) in try rules.checkImplementation(task) } }
        try complaints.end()
    }

    private func trace(_ chain: Chain) async throws {
        let restricted = try SourceTrace(chain: chain, policy: policy).check()
        guard !restricted.isEmpty else { return }
        log.info("restricted scopes: \(restricted.joined(separator: ", "))")
        var complaints = ChainComplaints()
        var commits: Set<SourceTrace.Commit> = []
        for task in chain.all {
            if SourceTrace.isFromGitHub(task) {
                guard let found = try SourceTrace.commits(of: task, policy) else {
                    complaints.add("\(task.label): from a pull request or a fork, but the task has restricted scopes")
                    continue
                }
                commits.formUnion(found)
            } else if SourceTrace.isTry(task, policy) {
                complaints.add("\(task.label): from a tree where anybody may push, but the task has restricted scopes")
            }
        }
        try complaints.end()
        let verdicts = try await eachOf(Array(commits), limit: 4) { ($0, try await host.hasLanded($0)) }
        for (commit, hasLanded) in verdicts where !hasLanded {
            complaints.add("\(commit.revision) is on no branch of \(commit.owner)/\(commit.name)")
        }
        try complaints.end()
    }

    // MARK: - Many at once

    /// Does something for every element, a limited number at once; results keep the order, complaints are told together.
    private func eachOf<Element: Sendable, Result: Sendable>(
        _ elements: [Element],
        limit: Int,
        _ body: @escaping @Sendable (Element) async throws -> Result
    ) async throws -> [Result] {
        var results = [Result?](repeating: nil, count: elements.count)
        var problems: [ChainProblem] = []
        try await withThrowingTaskGroup(of: (Int, Swift.Result<Result, ChainProblem>).self) { group in
            var next = 0
            func start() {
                guard next < elements.count else { return }
                let (index, element) = (next, elements[next])
                next += 1
                group.addTask {
                    do {
                        return (index, .success(try await body(element)))
                    } catch let problem as ChainProblem {
                        return (index, .failure(problem))
                    }
                }
            }
            for _ in 0..<max(1, limit) { start() }
            while let (index, result) = try await group.next() {
                switch result {
                case .success(let value): results[index] = value
                case .failure(let problem): problems.append(problem)
                }
                // One unreachable server makes asking it for everything else a long wait for nothing.
                if problems.isEmpty { start() }
            }
        }
        if let merged = ChainProblem(merging: problems) { throw merged }
        return results.compactMap { $0 }
    }
}
