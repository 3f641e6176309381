// SPDX-License-Identifier: MPL-2.0

import Core
import Crypto
import Expressions
import Glibc
import HTTPClient
import JSON
import Schedules
import Synchronization
import Taskcluster
import TaskclusterClient
import WorkerKit
import YAMLReader

/// Looks at the trees that tasks say they come from: files, pushes, projects, and what GitHub knows.
///
/// Nothing here waits longer than a minute for a server that asks for patience.
struct SourceHost: Sendable {
    let policy: ChainPolicy
    let client: TaskclusterClient
    let transport: any HTTPTransport
    /// Where what was fetched is kept for the time of a task.
    let directory: String
    let schedule: TransferSchedule
    let log: ChainLog

    /// Projects are looked up at most once a day.
    private static let projectsCache = Mutex<(url: String, value: JSONValue, read: Timestamp)?>(nil)

    // MARK: - Files and pushes

    /// The in-tree template of a repository at a revision.
    func template(_ repository: String, _ revision: String, of task: ChainTask) async throws -> JSONValue {
        let url = SourceTrace.url(repository)
        let text: String
        if let place = try location(of: policy.templatePath, url, revision) {
            text = try await cached("\(digest(place))_taskcluster.yml", revision) { try await self.text(place) }
        } else if SourceTrace.isGitHub(url) {
            let (owner, name) = try SourceTrace.ownerAndName(url, task)
            let key = digest("\(owner)/\(name)@\(revision):\(policy.templatePath)")
            text = try await cached(".cache/github_files/\(key)", revision) {
                try await self.githubFile(owner, name, revision)
            }
        } else {
            guard let parts = SourceURL(url), parts.host == "hg.mozilla.org" else {
                throw ChainProblem("\(task.label): no way is known to read files of \(repository)")
            }
            let place = "\(url)/raw-file/\(revision)/\(policy.templatePath)"
            text = try await cached("\(digest(place))_taskcluster.yml", revision) { try await self.text(place) }
        }
        return try parsed(text, "the in-tree template of \(repository)")
    }

    /// The pushlog's entry of the push that brought a revision.
    func push(_ repository: String, _ revision: String, of task: ChainTask) async throws -> (
        id: String, entry: JSONValue
    ) {
        guard policy.pushlogURL != "none" else {
            throw ChainProblem("\(task.label): it needs a pushlog, and pushlog_url is none")
        }
        let url = policy.pushlogURL.replacing("{repo}", with: repository).replacing("{revision}", with: revision)
        let text = try await cached("\(digest(url))_push_log.json", revision) { try await self.text(url) }
        let log = try parsed(text, "the pushlog of \(repository)")
        guard let push = log["pushes"]?.object?.first else {
            throw ChainProblem("\(task.label): the pushlog of \(repository) knows no push of \(revision)")
        }
        return (push.key, push.value)
    }

    /// The project a source belongs to, by the declared projects.
    func project(of source: String, _ task: ChainTask) async throws -> String {
        for (name, entry) in try await projects().object ?? [:] {
            guard let repository = entry["repo"]?.string else { continue }
            if source == repository || source.hasPrefix(repository + "/") { return name }
        }
        throw ChainProblem("\(task.label): no project is known for \(source)")
    }

    /// The level of trust in a project.
    func level(of project: String, _ task: ChainTask) async throws -> String {
        let entry = try await projects()[project]
        switch entry?["repo_type"]?.string {
        case "hg":
            if let access = entry?["access"]?.string { return access.replacing("scm_level_", with: "") }
        case "git":
            let branch = entry?["default_branch"]?.string ?? "main"
            let level = entry?["branches"]?.array?.first { $0["name"]?.string == branch }?["level"]
            if let level = level?.string ?? level?.int.map({ "\($0)" }) { return level }
        default: break
        }
        throw ChainProblem("\(task.label): no level is known for the project \(project)")
    }

    private func projects() async throws -> JSONValue {
        let now = Timestamp.now()
        let known = Self.projectsCache.withLock { $0 }
        if let known, known.url == policy.projectsURL, now - known.read < .seconds(86_400) { return known.value }
        let value = try parsed(await text(policy.projectsURL), "the list of projects")
        Self.projectsCache.withLock { $0 = (policy.projectsURL, value, now) }
        return value
    }

    private func location(
        of path: String,
        _ repository: String,
        _ revision: String
    ) throws(ChainProblem) -> String? {
        for location in policy.fileLocations {
            do throws(RegularExpression.Undecided) {
                guard try location.match.matches(repository) else { continue }
            } catch {
                throw ChainProblem("\(repository): vcs_file_url_templates \(error)")
            }
            return location.url.replacing("{repo}", with: repository).replacing("{path}", with: path)
                .replacing("{rev}", with: revision)
        }
        return nil
    }

    private func parsed(_ text: String, _ what: String) throws -> JSONValue {
        do {
            return try YAML.value(of: text)
        } catch {
            throw ChainProblem("\(what) cannot be read: \(error)")
        }
    }

    private func digest(_ text: String) -> String {
        Insecure.SHA1.hash(data: Array(text.utf8)).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// What never changes, because it belongs to a full revision, is fetched once.
    private func cached(_ name: String, _ revision: String, _ fetch: () async throws -> String) async throws -> String {
        let isFixed = revision.utf8.count == 40 && revision.allSatisfy(\.isHexDigit)
        let path = "\(directory)/\(name)"
        if isFixed, let text = try? FileText.read(path) { return text }
        let text = try await fetch()
        if isFixed {
            try TaskDirectories.make(String(path[..<(path.lastIndex(of: "/") ?? path.endIndex)]))
            try FileText.replace(path, with: Array(text.utf8))
        }
        return text
    }

    // MARK: - Fetching

    /// A document from the web; tried again while the server is away or answers with a page for people.
    private func text(_ url: String, headers: HTTPHeaders = [:], allowsHTML: Bool = false) async throws -> String {
        var attempt = 1
        while true {
            do {
                return try await textOnce(url, headers, allowsHTML)
            } catch let error as Passing {
                attempt += 1
                guard attempt <= schedule.attempts else { throw ChainProblem.unreachable("\(error)") }
                let pause = min(error.after ?? schedule.pause(before: attempt), .seconds(60))
                log.warning("\(error); attempt \(attempt) follows in \(pause)")
                try await Task.sleep(for: pause)
            }
        }
    }

    private struct Passing: Error, CustomStringConvertible {
        let description: String
        var after: Duration?
    }

    private func textOnce(_ url: String, _ headers: HTTPHeaders, _ allowsHTML: Bool) async throws -> String {
        var request = HTTPRequest(url: url, headers: headers, timeout: .seconds(60))
        request.headers["User-Agent"] = "slipway-scriptworker/\(Release.version)"
        request.redirects = 5
        request.acceptCompressed = true
        log.debug("GET \(URLMask.masked(url))")
        let response: HTTPResponse
        do {
            response = try await transport.send(request)
        } catch {
            if Task.isCancelled { throw CancellationError() }
            throw Passing(description: "\(URLMask.masked(url)): \(error)")
        }
        let shown = "\(URLMask.masked(url)): \(response.status)"
        switch response.status {
        case 200:
            let isPage = response.headers["Content-Type"]?.lowercased().hasPrefix("text/html") ?? false
            guard allowsHTML || !isPage else { throw Passing(description: "\(shown), but a page for people") }
            return String(decoding: response.body, as: UTF8.self)
        case 403, 429:
            guard let wait = patience(response) else { throw ChainProblem("\(shown)") }
            guard wait <= .seconds(60) else {
                throw ChainProblem.unreachable("\(shown): the server wants us to wait \(wait)")
            }
            throw Passing(description: "\(shown): too many requests", after: wait)
        case 500...599, 408:
            throw Passing(description: shown, after: patience(response))
        default:
            throw ChainProblem(shown)
        }
    }

    /// How long a server asks us to wait, if it does.
    private func patience(_ response: HTTPResponse) -> Duration? {
        if let text = response.headers["Retry-After"], let seconds = Int(text) { return .seconds(max(1, seconds)) }
        if response.headers["X-RateLimit-Remaining"] == "0",
            let reset = response.headers["X-RateLimit-Reset"].flatMap(Int.init)
        {
            let wait = Timestamp(milliseconds: Int64(reset) * 1000) - .now()
            return max(.seconds(1), wait + .seconds(1))
        }
        return response.status == 429 ? .seconds(60) : nil
    }

    // MARK: - GitHub

    /// An answer of GitHub about a repository; segments follow `repos/<owner>/<name>`.
    func github(_ owner: String, _ name: String, _ segments: [String], query: String = "") async throws -> JSONValue {
        let path = (["repos", owner, name] + segments).map(PercentText.encoded).joined(separator: "/")
        var headers: HTTPHeaders = ["Accept": "application/vnd.github+json"]
        let token = await githubToken(owner, name)
        if !token.isEmpty { headers["Authorization"] = "token \(token)" }
        return try parsed(await text("\(policy.githubURL)/\(path)\(query)", headers: headers), "GitHub's answer")
    }

    private func githubFile(_ owner: String, _ name: String, _ revision: String) async throws -> String {
        let segments = ["contents"] + policy.templatePath.split(separator: "/").map(String.init)
        let answer = try await github(owner, name, segments, query: "?ref=\(PercentText.encoded(revision))")
        let text = (answer["content"]?.string ?? "").filter { !$0.isWhitespace }
        guard answer["content"]?.string != nil, let bytes = Base64.decoded(text) else {
            throw ChainProblem("GitHub's answer for \(policy.templatePath) of \(owner)/\(name) holds no content")
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Whether a commit is on a branch of the repository, not just offered to it.
    func hasLanded(_ commit: SourceTrace.Commit) async throws -> Bool {
        if policy.sourceRules.contains(where: \.needsSecret) { return true }
        var revision = commit.revision
        let repository = try await github(commit.owner, commit.name, [])
        if revision.utf8.count != 40 || !revision.allSatisfy(\.isHexDigit) {
            let tag = try await github(commit.owner, commit.name, ["commits", revision])
            guard let found = tag["sha"]?.string else {
                throw ChainProblem("\(commit.owner)/\(commit.name) knows no \(revision)")
            }
            revision = found
        }
        guard let page = repository["html_url"]?.string else {
            throw ChainProblem("GitHub does not say where \(commit.owner)/\(commit.name) is")
        }
        let text = try await text("\(page)/branch_commits/\(revision)", allowsHTML: true)
        return text.contains { !$0.isWhitespace }
    }

    /// A token for one repository from the deployment, or the configured one.
    private func githubToken(_ owner: String, _ name: String) async -> String {
        let body: JSONValue = [
            "repositories": [.string(name)],
            "permissions": ["contents": "read", "metadata": "read", "pull_requests": "read"],
        ]
        let path = ["github", policy.githubApplication, owner, "repo-token"]
        do {
            let answer = try await client.call("auth", "POST", path, body: body, retry: .once)
            if let token = answer["token"]?.string { return token }
        } catch {
            log.debug("no token for \(owner)/\(name) from the deployment: \(error.status ?? 0) \(error.code)")
        }
        return policy.githubToken
    }
}

extension PercentText {
    /// Escapes everything but unreserved characters.
    static func encoded(_ text: String) -> String {
        var result = ""
        for byte in text.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f, 0x7e:
                result.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                result += (byte < 16 ? "%0" : "%") + String(byte, radix: 16, uppercase: true)
            }
        }
        return result
    }
}
