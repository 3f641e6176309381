// SPDX-License-Identifier: MPL-2.0

import Expressions

/// Traces the tasks of a chain to the repositories they say they come from.
struct SourceTrace {
    let chain: Chain
    let policy: ChainPolicy

    /// The scopes of a task that only certain trees may use, with these trees' name.
    static func restrictedScopes(
        of task: ChainTask,
        _ policy: ChainPolicy
    ) throws(ChainProblem) -> [(scope: String, level: String)] {
        var found: [(scope: String, level: String)] = []
        for scope in task.scopes {
            let matches = policy.restrictedScopes.filter { pattern, _ in
                pattern.hasSuffix("*") ? scope.hasPrefix(pattern.dropLast()) : scope == pattern
            }
            guard matches.count < 2 else {
                throw ChainProblem(
                    "\(task.label): \(scope) matches several restricted scopes: \(matches.keys.sorted())"
                )
            }
            if let match = matches.first { found.append((scope, match.value)) }
        }
        return found
    }

    /// The repository that a task's environment names.
    static func repository(of task: ChainTask, prefix: String, kind: String = "HEAD") -> String? {
        guard var text = task.environment("\(prefix)_\(kind)_REPOSITORY"), !text.isEmpty else { return nil }
        while text.hasSuffix("/") { text.removeLast() }
        return text
    }

    /// Writes an address of the form `git@host:path` as a URL.
    static func url(_ repository: String) -> String {
        let short = "git@github.com:"
        return repository.hasPrefix(short) ? "ssh://github.com/" + repository.dropFirst(short.count) : repository
    }

    /// Where a task says it comes from, once that lies within the repository it names.
    static func source(of task: ChainTask, _ policy: ChainPolicy) throws(ChainProblem) -> SourceURL {
        guard let text = task.source, let source = SourceURL(text) else {
            throw ChainProblem("\(task.label): metadata.source is not a URL")
        }
        if policy.isStrict, !source.isPlain {
            throw ChainProblem("\(task.label): the path of metadata.source is not plain: \(text)")
        }
        var repository = repository(of: task, prefix: policy.environmentPrefix)
        if let alternate = policy.alternateEnvironmentPrefix,
            let other = Self.repository(of: task, prefix: alternate)
        {
            repository = other
        }
        if let repository, !contains(repository, source) {
            throw ChainProblem("\(task.label): metadata.source \(text) does not lie in the repository \(repository)")
        }
        return source
    }

    private static func contains(_ repository: String, _ source: SourceURL) -> Bool {
        var text = url(repository)
        if text.hasSuffix(".git") { text.removeLast(4) }
        guard let repository = SourceURL(text), repository.host == source.host else { return false }
        let base = repository.path.split(separator: "/", omittingEmptySubsequences: false)
        let path = source.path.split(separator: "/", omittingEmptySubsequences: false)
        return path.starts(with: base)
    }

    /// The path by which the rules know a repository, if they do.
    ///
    /// A source that the rules take too long for is an error, lest a later rule trusts what an earlier one is about.
    func trustedPath(_ source: SourceURL) throws(ChainProblem) -> String? {
        do throws(RegularExpression.Undecided) {
            for rule in policy.sourceRules {
                if let path = try rule.groups(of: source)?["path"] { return path }
            }
            return nil
        } catch {
            throw ChainProblem("\(source.text): trusted_vcs_rules \(error)")
        }
    }

    /// Checks repositories and restricted scopes; returns the restricted scopes found.
    func check() throws(ChainProblem) -> [String] {
        var complaints = ChainComplaints()
        var paths: [String: String?] = [:]
        for task in chain.all {
            do throws(ChainProblem) {
                paths[task.taskID] = .some(try trustedPath(try Self.source(of: task, policy)))
            } catch {
                error.lines.forEach { complaints.add($0) }
            }
        }
        try complaints.end()
        mirror(&paths)
        let head = chain.head
        let own = paths[head.taskID] ?? nil
        let restricted = try Self.restrictedScopes(of: head, policy)
        for (scope, level) in restricted where !(policy.restrictedTrees[level] ?? []).contains(own ?? "") {
            complaints.add("\(head.label): \(own ?? "no trusted repository") is not among the trees for \(scope)")
        }
        for task in chain.all {
            let path = paths[task.taskID] ?? nil
            if task.decisionID == head.decisionID {
                if path != own {
                    complaints.add(
                        "\(task.label): its repository \(path ?? "(not trusted)") is not that of the task to be run, "
                            + (own ?? "(not trusted)")
                    )
                }
            } else if !restricted.isEmpty, path == nil {
                complaints.add("\(task.label): not from a trusted repository, but the task has restricted scopes")
            }
        }
        try complaints.end()
        return restricted.map(\.scope)
    }

    /// During a migration tasks of an hg push may name the git mirror; parents, being rebuilt from their source, may not.
    private func mirror(_ paths: inout [String: String?]) {
        let decision = chain.all.first { $0.taskID == chain.head.decisionID && $0.isParent }
        guard let parent = paths[decision?.taskID ?? chain.head.taskID] ?? nil, let mirror = policy.gitMirrors[parent]
        else { return }
        for task in chain.all where task.decisionID == chain.head.decisionID && !task.isParent {
            if paths[task.taskID] == .some(mirror) { paths[task.taskID] = .some(parent) }
        }
    }

    // MARK: - Try and pull requests

    static func isGitHub(_ url: String) -> Bool {
        url.hasPrefix("https://github.com/") || url.hasPrefix("ssh://github.com/")
    }

    static func isFromGitHub(_ task: ChainTask) -> Bool {
        task.definition["schedulerId"]?.string == "taskcluster-github" || task.tasksFor?.hasPrefix("github-") ?? false
            || isGitHub(task.source ?? "")
    }

    /// Whether a task comes from a tree where anybody may push.
    static func isTry(_ task: ChainTask, _ policy: ChainPolicy) -> Bool {
        let repository = repository(of: task, prefix: policy.environmentPrefix) ?? ""
        return task.definition["schedulerId"]?.string == "gecko-level-1"
            || task.environment("MH_BRANCH")?.contains("try") ?? false
            || SourceURL(repository)?.segments.first?.contains("try") ?? false
            || SourceURL(task.source ?? "")?.segments.first?.contains("try") ?? false
    }

    /// A commit that must have landed for a task not to be a pull request's.
    struct Commit: Hashable, Sendable {
        var owner: String
        var name: String
        var revision: String
    }

    /// The commits a task of a git host rests on; nil when it is a pull request's or a stranger's without looking further.
    static func commits(of task: ChainTask, _ policy: ChainPolicy) throws(ChainProblem) -> [Commit]? {
        if ["github-pull-request", "github-pull-request-untrusted"].contains(task.tasksFor) { return nil }
        var commits: [Commit] = []
        let revision = task.environment("\(policy.environmentPrefix)_HEAD_REV")
        if let repository = repository(of: task, prefix: policy.environmentPrefix) {
            let (owner, name) = try ownerAndName(url(repository), task)
            guard policy.officialOwners.contains(owner) else { return nil }
            if let revision, !revision.isEmpty {
                commits.append(Commit(owner: owner, name: name, revision: revision))
            }
        }
        let (owner, name) = try ownerAndName(task.source ?? "", task)
        let segments = SourceURL(task.source ?? "")?.segments ?? []
        guard segments.count > 3 else {
            throw ChainProblem("\(task.label): metadata.source names no revision: \(task.source ?? "")")
        }
        guard policy.officialOwners.contains(owner) else { return nil }
        commits.append(Commit(owner: owner, name: name, revision: segments[3]))
        return commits
    }

    static func ownerAndName(_ text: String, _ task: ChainTask) throws(ChainProblem) -> (String, String) {
        guard isGitHub(text), let url = SourceURL(text), url.segments.count >= 2 else {
            throw ChainProblem("\(task.label): \(text) is not a repository on GitHub")
        }
        let name = url.segments[1]
        return (url.segments[0], name.hasSuffix(".git") ? String(name.dropLast(4)) : name)
    }
}
