// SPDX-License-Identifier: MPL-2.0

import JSON

/// Decision and action tasks: what they announced, and where they themselves come from.
extension ChainVerifier {
    func check(
        parent: ChainTask,
        _ chain: Chain,
        _ early: EarlySources?
    ) async throws {
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
        let decision = try decision(of: parent, chain)
        switch early {
        case .found(let sources): try rebuild(parent, decision, sources)
        case .refused(let problem): throw problem
        case nil: try rebuild(parent, decision, try await sources(of: parent, decision))
        }
        log.info("\(parent.label): its definition is the one in its tree")
    }

    private func json(_ link: ChainTask, _ name: String) throws(ChainProblem) -> JSONValue {
        do {
            return try JSONValue(parsing: FileText.bytes(path(link.taskID, name)))
        } catch {
            throw ChainProblem("\(link.label): \(name) cannot be read: \(error)")
        }
    }

    private func decision(of parent: ChainTask, _ chain: Chain) throws(ChainProblem) -> ChainTask {
        parent.decisionID == chain.head.taskID ? chain.head : try chain.link(parent.decisionID)
    }

    /// What a parent is rebuilt from.
    struct Sources: Sendable {
        var tasksFor: String
        var template: JSONValue
        var context: JSONObject

        var isAction: Bool { tasksFor == "action" || tasksFor == "pr-action" }
    }

    /// What became of an early attempt.
    enum EarlySources: Sendable {
        case found(Sources)
        case refused(ChainProblem)
    }

    /// Fetches what decision tasks of a chain are rebuilt from, as far as that takes nothing but their definitions; what is wrong is
    /// told when it is their turn.
    func earlySources(_ chain: Chain) async -> [String: EarlySources] {
        let rules = WorkerRules(chain: chain, policy: policy)
        var found: [String: EarlySources] = [:]
        for parent in chain.all where parent.isParent && parent.kind.name == "decision" {
            // The check by type finds the same, and more.
            guard (try? rules.checkType(parent)) != nil, let decision = try? decision(of: parent, chain) else {
                continue
            }
            do {
                found[parent.taskID] = .found(try await sources(of: parent, decision))
            } catch let problem as ChainProblem {
                found[parent.taskID] = .refused(problem)
                // Others will be asked for together.
                if problem.code == .resourceUnavailable { break }
            } catch {
                break
            }
        }
        return found
    }

    private func sources(of parent: ChainTask, _ decision: ChainTask) async throws -> Sources {
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
        async let template = host.template(repository, revision, of: decision)
        let context = try await gatherer.context(tasksFor)
        return Sources(tasksFor: tasksFor, template: try await template, context: context)
    }

    private func rebuild(_ parent: ChainTask, _ decision: ChainTask, _ sources: Sources) throws(ChainProblem) {
        var (template, context) = (sources.template, sources.context)
        if sources.isAction {
            let action = try DefinitionMatch.action(json(decision, "public/actions.json"), of: parent)
            template = DefinitionMatch.hookTemplate(template, action, tasksFor: sources.tasksFor)
            context = try DefinitionMatch.hookContext(action, context, parent: parent)
        }
        var tasks = try DefinitionMatch.rebuilt(template, context: context, parent: parent, decision: decision)
        if sources.isAction {
            tasks = try DefinitionMatch.settleActionGroup(tasks, parent: parent, decision: decision)
        }
        try DefinitionMatch.check(tasks, against: parent)
    }
}
