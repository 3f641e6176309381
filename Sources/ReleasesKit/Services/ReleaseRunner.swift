// SPDX-License-Identifier: MPL-2.0

import JSON
import JSONE
import Logging
import StepKit
import Taskcluster
import TaskclusterClient

/// Begins the releases that come by the first version's form: checks them, makes the task that plans their tasks, and lets
/// a pipeline follow those.
///
/// What is to be made is stored with its id before it is asked for, so whoever comes after a crash asks for the same once
/// more, and there is one. Any number of processes may run at the same time.
struct ReleaseRunner: Sendable {
    let service: ReleaseService

    /// Takes every release that is ready one step further or to its end; one that fails holds up no other.
    func runOnce() async throws {
        for name in try await service.submissions.list(ready: true, complete: false) {
            guard let submission = try await service.submissions.find(name),
                let product = service.catalogue.product(submission.product), let rules = product.runner
            else { continue }
            do {
                try await run(submission, product, rules)
            } catch {
                try Task.checkCancellation()
                if let refusal = Self.refusal(error) {
                    try await refuse(name, refusal)
                    continue
                }
                Logger.current.warning(
                    "a release is not begun yet",
                    metadata: ["release": "\(name)", "error": "\(error)"]
                )
            }
        }
    }

    /// What cannot be repaired by trying again.
    private static func refusal(_ error: any Error) -> String? {
        switch error {
        case let refusal as StepProblem where refusal.status < 500: refusal.detail
        case let refusal as TaskclusterError where !refusal.isRetriable && refusal.status != nil:
            "the queue answered \(refusal.status ?? 0) \(refusal.code)"
        default: nil
        }
    }

    /// Nothing more happens until somebody makes it ready again; then a task that is not there is planned anew.
    private func refuse(_ name: String, _ text: String, forgetting task: String? = nil) async throws {
        _ = try await service.submissions.change(name, by: ReleaseService.actor) { submission in
            guard !submission.isComplete else { return }
            if let task, submission.graph == task {
                submission.graph = nil
                submission.graphTask = nil
            }
            submission.isReady = false
            submission.status = String(text.prefix(250))
        }
    }

    private func say(_ status: String, _ submission: Submission) async throws {
        guard submission.status != status else { return }
        _ = try await service.submissions.change(submission.name, by: ReleaseService.actor) { submission in
            // Another process may have begun the release since, or somebody has called it back.
            guard submission.isReady, !submission.isComplete else { return }
            submission.status = status
        }
    }

    private func run(_ submission: Submission, _ product: Product, _ rules: RunnerRules) async throws {
        var task = submission.graphTask
        if task == nil {
            // Whoever told the group of its tasks makes them; there is nothing to do but to wait for that.
            guard submission.graph == nil else { return }
            if let problem = rules.problem(with: submission) {
                return try await refuse(submission.name, problem)
            }
            // What only the source and the archive know is looked at in the beginning and before it counts, not at each look.
            let isWaiting = submission.status == Self.waiting
            if !isWaiting, let problem = try await distantProblem(submission, rules) {
                return try await refuse(submission.name, problem)
            }
            let project = submission.text("branch").split(separator: "/").last.map(String.init) ?? ""
            let domain = DecisionTasks.trustDomain(product, project: project)
            let revision = submission.text("mozillaRevision")
            guard try await service.decisions.task(domain, project: project, revision: revision) != nil else {
                return try await say(Self.waiting, submission)
            }
            if isWaiting, let problem = try await distantProblem(submission, rules) {
                return try await refuse(submission.name, problem)
            }
            task = try await plan(submission, rules)
        }
        let name = submission.name
        guard let task, let id = try await service.submissions.find(name)?.graph else { return }
        try await say("Submitting tasks", submission)
        do throws(TaskclusterError) {
            _ = try await service.decisions.client.queue.createTask(id, task)
        } catch {
            guard let text = Self.refusal(error) else { throw error }
            // It may have been made before, and only the answer was lost.
            guard try await isThere(id) else { return try await refuse(name, text, forgetting: id) }
        }
        _ = try await service.submissions.change(name, by: ReleaseService.actor) { submission in
            guard !submission.isComplete, submission.graph == nil || submission.graph == id else { return }
            submission.graph = id
            submission.graphTask = task
            submission.isComplete = true
            submission.isPending = true
            submission.status = "Started"
        }
    }

    private func isThere(_ task: String) async throws(TaskclusterError) -> Bool {
        do {
            _ = try await service.decisions.client.queue.status(task)
            return true
        } catch {
            guard error.status == 404 else { throw error }
            return false
        }
    }

    /// Stores the task that plans the others with its id; whoever was first has decided.
    private func plan(_ submission: Submission, _ rules: RunnerRules) async throws -> JSONValue? {
        let id = Slugid.make()
        let now = service.now()
        var context = submission.fields
        context["name"] = .string(submission.name)
        context["product"] = .string(submission.product)
        let rendered: JSONValue
        do {
            rendered = try JSONE.render(
                rules.task,
                context: ["release": .object(context), "taskId": .string(id), "taskGroupId": .string(id)],
                now: now
            )
        } catch {
            throw StepProblem.invalid("The task of \(submission.product) cannot be made: \(error)")
        }
        guard rendered.object != nil else { throw StepProblem.invalid("The task has to be an object") }
        let changed = try await service.submissions.change(submission.name, by: ReleaseService.actor) { submission in
            guard submission.graph == nil else { return }
            submission.graph = id
            submission.graphTask = rendered
            submission.status = "Generating task graph"
        }
        return changed?.graphTask
    }

    private static let waiting = "Waiting for builds to be completed"

    private func distantProblem(_ submission: Submission, _ rules: RunnerRules) async throws -> String? {
        if let problem = try await displayProblem(submission, rules) { return problem }
        return try await partialsProblem(submission, rules)
    }

    /// What is wrong with the version, by what the source says that it is.
    private func displayProblem(_ submission: Submission, _ rules: RunnerRules) async throws -> String? {
        guard rules.checks.contains(.displayVersion),
            let application = ReleaseService.application(submission.product)
        else { return nil }
        let repository = "\(service.place.repositories)/\(submission.text("branch"))"
        let revision = submission.text("mozillaRevision")
        let path = "\(application)/config/version_display.txt"
        let found = try await service.decisions.line(path, repository: repository, revision: revision)
        guard found != submission.text("version") else { return nil }
        return "display_version: the source says that it is \(found.prefix(40))"
    }

    /// What is wrong with what it updates from: what was released of a version has to be the candidate that is named.
    private func partialsProblem(_ submission: Submission, _ rules: RunnerRules) async throws -> String? {
        guard rules.checks.contains(.partials) else { return nil }
        for partial in submission.partials.compactMap(Partial.init) {
            let version = partial.version.text
            let root = "\(service.place.archive)/\(submission.product)"
            let released = try await service.decisions.sums("\(root)/releases/\(version)")
            let candidate = try await service.decisions.sums(
                "\(root)/candidates/\(version)-candidates/build\(partial.build)"
            )
            guard released == candidate else {
                return "partial_updates: the build \(partial.build) of \(version) is not what was released"
            }
        }
        return nil
    }
}
