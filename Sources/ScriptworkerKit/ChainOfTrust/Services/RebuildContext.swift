// SPDX-License-Identifier: MPL-2.0

import JSON
import WorkerKit
import YAMLReader

/// Gathers what an in-tree template was once rendered with, from the task itself and from its tree.
struct RebuildContext: Sendable {
    let policy: ChainPolicy
    let host: SourceHost
    let parent: ChainTask
    let decision: ChainTask
    /// The decision task's `public/parameters.yml`.
    let parametersPath: String

    private var prefix: String { policy.environmentPrefix }

    /// The context for the in-tree template itself.
    func context(_ tasksFor: String) async throws -> JSONObject {
        var context: JSONObject = [
            "now": parent.definition["created"] ?? nil, "tasks_for": .string(tasksFor),
            "ownTaskId": .string(parent.taskID), "taskId": nil,
        ]
        let kind: ChainPolicy.SourceKind
        if policy.sourceKinds.count > 1 {
            kind = SourceTrace.isFromGitHub(decision) ? .github : .hg
        } else {
            kind = policy.sourceKinds.first ?? .github
        }
        guard policy.sourceKinds.contains(kind) else {
            throw ChainProblem(
                "\(parent.label): the product \(policy.product) has no sources of the kind \(kind.rawValue)"
            )
        }
        let additions = try await kind == .hg ? mercurial(tasksFor) : github(tasksFor)
        for (key, value) in additions { context[key] = value }
        return context
    }

    private func unknown(_ tasksFor: String) -> ChainProblem {
        ChainProblem("\(parent.label): \(tasksFor) is not possible for a source of this kind")
    }

    private func required(_ name: String) throws(ChainProblem) -> String {
        guard let value = decision.environment("\(prefix)_\(name)"), !value.isEmpty else {
            throw ChainProblem("\(decision.label): its environment has no \(prefix)_\(name)")
        }
        return value
    }

    private func variable(_ names: String...) -> JSONValue {
        for name in names {
            if let value = decision.environment("\(prefix)_\(name)") { return .string(value) }
        }
        return nil
    }

    private func repository(_ kind: String = "HEAD") throws(ChainProblem) -> String {
        guard let text = SourceTrace.repository(of: decision, prefix: prefix, kind: kind) else {
            throw ChainProblem("\(decision.label): its environment has no \(prefix)_\(kind)_REPOSITORY")
        }
        return text
    }

    private func cron(_ task: ChainTask) throws(ChainProblem) -> JSONValue {
        let value = task.definition["extra"]?["cron"] ?? nil
        guard let text = value.string else { return value }
        do {
            return try YAML.value(of: text)
        } catch {
            throw ChainProblem("\(task.label): extra.cron cannot be read")
        }
    }

    private func actionContext() throws(ChainProblem) -> JSONObject {
        guard let context = parent.definition["extra"]?["action"]?["context"]?.object else {
            throw ChainProblem("\(parent.label): extra.action.context is missing")
        }
        return context
    }

    // MARK: - Mercurial

    private func mercurial(_ tasksFor: String) async throws -> JSONObject {
        let source = try SourceTrace.source(of: decision, policy).text
        let project = try await host.project(of: source, decision)
        var described: JSONValue = [
            "url": .string(try repository()),
            "level": .string(try await host.level(of: project, decision)),
            "project": .string(project),
        ]
        var context: JSONObject = [:]
        switch tasksFor {
        case "action":
            for (key, value) in try actionContext() { context[key] = value }
            do {
                context["parameters"] = try YAML.value(of: FileText.read(parametersPath))
            } catch {
                throw ChainProblem("\(decision.label): its parameters cannot be read: \(error)")
            }
            context["task"] = .null
        case "hg-push", "cron":
            described["type"] = "hg"
            context["push"] = try await push(isCron: tasksFor == "cron")
            if tasksFor == "cron" { context["cron"] = try cron(parent) }
        default:
            throw unknown(tasksFor)
        }
        context["repository"] = described
        return context
    }

    private func push(isCron: Bool) async throws -> JSONValue {
        let revision = try required("HEAD_REV")
        let (id, entry) = try await host.push(repository(), revision, of: decision)
        let changesets = entry["changesets"]?.array ?? []
        guard let first = changesets.first, let last = changesets.last else {
            throw ChainProblem("\(decision.label): its push has no changesets")
        }
        var comment = ""
        if !isCron {
            comment = decision.environment("GECKO_COMMIT_MSG") ?? " "
            let pushed = last["desc"]?.string ?? ""
            var allowed = [" "]
            if let start = pushed.firstRange(of: "try:")?.lowerBound {
                allowed.append(String(pushed[start...].prefix { $0 != "\n" }))
            }
            guard allowed.contains(comment) else {
                throw ChainProblem("\(decision.label): its comment is not that of its push: \(comment)")
            }
        }
        return [
            "base_revision": first["parents"]?[0] ?? nil, "revision": .string(revision), "comment": .string(comment),
            "owner": isCron ? "cron" : entry["user"] ?? nil, "pushlog_id": .string(id),
            "pushdate": entry["date"] ?? nil,
        ]
    }

    // MARK: - GitHub

    private func github(_ tasksFor: String) async throws -> JSONObject {
        switch tasksFor {
        case "github-push": try await githubPush()
        case "github-pull-request", "github-pull-request-untrusted": try await githubPullRequest()
        case "github-release": try await githubRelease()
        case "cron": try await githubCron()
        case "action", "pr-action": try actionContext()
        default: throw unknown(tasksFor)
        }
    }

    private func githubPush() async throws -> JSONObject {
        let url = SourceTrace.url(try repository())
        let (owner, name) = try SourceTrace.ownerAndName(url, decision)
        let revision = try required("HEAD_REV")
        let commit = try await host.github(owner, name, ["commits", revision])
        // Commits made on the site itself are committed by the site.
        var login = commit["committer"]?["login"]?.string
        if login == nil || login == "web-flow" {
            login = commit["author"]?["login"]?.string ?? commit["commit"]?["author"]?["login"]?.string
        }
        return [
            "event": [
                "before": variable("BASE_REV"),
                "after": .string(revision),
                "pusher": ["email": decision.definition["metadata"]?["owner"] ?? nil],
                "base_ref": variable("BASE_BRANCH", "BASE_REF"),
                "ref": variable("HEAD_BRANCH", "HEAD_REF"),
                "repository": [
                    "full_name": .string("\(owner)/\(name)"),
                    "ssh_url": .string("git@github.com:\(owner)/\(name).git"),
                    "html_url": .string(url),
                    "name": .string(name),
                    "pushed_at": variable("PUSH_DATE_TIME"),
                ],
                "sender": ["login": .string(login ?? "@@@unknown@@@")],
            ]
        ]
    }

    private func githubPullRequest() async throws -> JSONObject {
        let base = SourceTrace.url(try repository("BASE"))
        let head = SourceTrace.url(try repository())
        var (owner, name) = try SourceTrace.ownerAndName(head, decision)
        let definition = try await host.github(owner, name, [])
        if definition["fork"]?.bool == true, base != head {
            guard let above = definition["parent"], let aboveOwner = above["owner"]?["login"]?.string,
                let aboveName = above["name"]?.string
            else { throw ChainProblem("\(decision.label): GitHub does not tell what \(head) is a fork of") }
            (owner, name) = (aboveOwner, aboveName)
        }
        var request = try await host.github(owner, name, ["pulls", required("PULL_REQUEST_NUMBER")])
        request["head"]?["updated_at"] = variable("PUSH_DATE_TIME")
        request["base"]?["sha"] = variable("BASE_REV")
        request["head"]?["sha"] = variable("HEAD_REV")
        return [
            "event": [
                "action": "synchronize", "repository": request["base"]?["repo"] ?? nil, "pull_request": request,
                "sender": ["login": request["head"]?["user"]?["login"] ?? nil],
            ]
        ]
    }

    private func githubRelease() async throws -> JSONObject {
        let url = try repository()
        let (owner, name) = try SourceTrace.ownerAndName(SourceTrace.url(url), decision)
        let tag = try required("HEAD_REV")
        let release = try await host.github(owner, name, ["releases", "tags", tag])
        return [
            "event": [
                "action": "published",
                "repository": [
                    "clone_url": .string("\(url).git"), "full_name": .string("\(owner)/\(name)"),
                    "html_url": .string(url), "name": .string(name),
                ],
                "release": [
                    "tag_name": .string(tag), "target_commitish": release["target_commitish"] ?? nil,
                    "published_at": release["published_at"] ?? nil,
                ],
                "sender": ["login": release["author"]?["login"] ?? nil],
            ]
        ]
    }

    private func githubCron() async throws -> JSONObject {
        let url = try repository()
        let (owner, name) = try SourceTrace.ownerAndName(SourceTrace.url(url), decision)
        let revision = variable("HEAD_REV")
        let branch = variable("HEAD_BRANCH", "HEAD_REF")
        let user = decision.environment("\(prefix)_TRIGGERED_BY") ?? "TaskclusterHook"
        return [
            "cron": try cron(decision),
            "event": [
                "repository": [
                    "clone_url": .string(url), "full_name": .string("\(owner)/\(name)"), "html_url": .string(url),
                    "name": .string(name),
                ],
                "release": [
                    "tag_name": revision, "target_commitish": branch, "published_at": variable("PUSH_DATE_TIME"),
                ],
                "sender": ["login": .string(user)],
            ],
            "repository": [
                "url": .string(url), "project": .string(name),
                "level": .string(try await host.level(of: name, decision)), "type": "git",
            ],
            "push": ["revision": revision, "branch": branch],
        ]
    }
}
