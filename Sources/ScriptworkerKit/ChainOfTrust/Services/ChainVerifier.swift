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
        async let early = early(head, includingHead)
        try await build(&chain, includingHead)
        log.info("the chain has \(chain.links.count) links")
        let built = chain
        async let sources = earlySources(built)
        var answers = await early
        chain.statements = try await statements(chain.links, &answers)
        try await fetchInputs(chain, answers)
        try await checkTypes(chain, await sources)
        try checkImplementations(chain)
        try await trace(chain)
        return chain
    }

    func path(_ taskID: String, _ name: String) -> String { "\(directory)/cot/\(taskID)/\(name)" }

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

    private func statements(
        _ links: [ChainTask],
        _ answers: inout EarlyAnswers
    ) async throws -> [String: ChainStatement] {
        let ids = links.map(\.taskID)
        let more = await statuses(ids.filter { answers.statuses[$0] == nil })
        answers.statuses.merge(more) { _, new in new }
        await complete(&answers, statementNames(ids))
        let pairs = try await eachOf(links, limit: concurrency) { [answers] link in
            (link.taskID, try await statement(of: link, answers.statuses[link.taskID], answers.small))
        }
        return Dictionary(uniqueKeysWithValues: pairs)
    }

    private func statement(
        of link: ChainTask,
        _ status: JSONValue?,
        _ small: SmallArtifacts
    ) async throws -> ChainStatement {
        let bytes = try await content(ChainOfTrustArtifact.name, of: link, small)
        var signer: String?
        if policy.checksSignatures {
            let signature = try await content(ChainOfTrustArtifact.signatureName, of: link, small)
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

    /// Fetches a file that is looked at here, too.
    private func content(_ name: String, of link: ChainTask, _ small: SmallArtifacts) async throws -> [UInt8] {
        try await fetch(name, of: link, [:], small)
        return try small.bytes(SmallArtifacts.Name(link.taskID, name)) ?? FileText.bytes(path(link.taskID, name))
    }

    // MARK: - Inputs

    private struct Input: Sendable {
        var link: ChainTask
        var name: String
        var isOptional: Bool
    }

    private func fetchInputs(_ chain: Chain, _ answers: EarlyAnswers) async throws {
        let inputs = try await inputs(of: chain)
        var answers = answers
        await complete(&answers, inputs.map { SmallArtifacts.Name($0.link.taskID, $0.name) })
        _ = try await eachOf(inputs, limit: concurrency) { [small = answers.small] input in
            try await fetch(input, chain, small)
        }
    }

    private func inputs(of chain: Chain) async throws -> [Input] {
        var wanted: [String: [String: Bool]] = [:]
        for link in chain.links where link.isParent {
            let isDecision = link.kind.name == "decision"
            for name in isDecision ? ChainOfTrustArtifact.ofParents : ["public/task-graph.json"] {
                wanted[link.taskID, default: [:]][name] = false
            }
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

    private func checkTypes(_ chain: Chain, _ sources: [String: EarlySources]) async throws {
        let rules = WorkerRules(chain: chain, policy: policy)
        var complaints = ChainComplaints()
        for task in chain.all { complaints.collect { () throws(ChainProblem) in try rules.checkType(task) } }
        try complaints.end()
        _ = try await eachOf(chain.all.filter(\.isParent), limit: 4) { parent in
            try await check(parent: parent, chain, sources[parent.taskID])
        }
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
