// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import StepKit
import TaskclusterClient

/// Finds the tasks that planned a revision, and what they say can be done with it.
struct DecisionTasks: Sendable {
    let client: TaskclusterClient
    let transport: any HTTPTransport

    /// What is known of a decision task.
    struct Decision: Sendable {
        let task: String
        /// The phases that the source can carry out.
        let flavors: [String]
    }

    /// The index's name for the decision task of a revision.
    static func route(_ domain: String, project: String, revision: String) -> String {
        "\(domain).v2.\(project).revision.\(revision).taskgraph.decision"
    }

    /// The part of index names that a project belongs to.
    static func trustDomain(_ product: Product, project: String) -> String {
        if let domain = product.trustDomain { return domain }
        if project.contains("comm") { return "comm" }
        return project.contains("xpi") ? "xpi" : "gecko"
    }

    /// The id of the decision task of a revision; nil if there is none.
    func task(_ domain: String, project: String, revision: String) async throws -> String? {
        do throws(TaskclusterError) {
            let route = Self.route(domain, project: project, revision: revision)
            return try await client.index.findTask(route)["taskId"]?.string
        } catch {
            if error.status == 404 { return nil }
            throw Self.problem(error)
        }
    }

    /// The decision of a revision with the phases it knows.
    func decision(_ product: Product, project: String, revision: String) async throws -> Decision {
        let domain = Self.trustDomain(product, project: project)
        guard let task = try await task(domain, project: project, revision: revision) else {
            throw StepProblem.invalid(
                "There is no decision task of \(revision) in \(domain) \(project)",
                code: "no_decision_task"
            )
        }
        let actions = try await artifact("public/actions.json", of: task)
        let promotion = actions["actions"]?.array?.first { $0["name"]?.string == "release-promotion" }
        guard let promotion else {
            throw StepProblem.invalid("The task \(task) has no action release-promotion", code: "unsupported_flavor")
        }
        let flavors = promotion["schema"]?["properties"]?["release_promotion_flavor"]?["enum"]?.array ?? []
        return Decision(task: task, flavors: flavors.compactMap(\.string))
    }

    private func artifact(_ name: String, of task: String) async throws -> JSONValue {
        let url = await client.queue.artifactURL(task, name: name)
        do {
            var request = HTTPRequest(url: url)
            request.redirects = 5
            request.sink = .memory(limit: 16 << 20)
            request.acceptCompressed = true
            let response = try await transport.send(request)
            guard response.status == 200 else {
                throw StepProblem.invalid("The artifact \(name) of \(task): \(response.status)", code: "no_artifact")
            }
            return try response.json()
        } catch let error as StepProblem {
            throw error
        } catch {
            throw StepProblem(503, "queue_unavailable", "The artifact \(name) of \(task) cannot be had")
        }
    }

    /// A failure of Taskcluster's as a refusal.
    private static func problem(_ error: TaskclusterError) -> StepProblem {
        guard let status = error.status, (400..<500).contains(status) else {
            return StepProblem(
                503,
                "taskcluster_unavailable",
                "Taskcluster cannot be asked",
                headers: ["Retry-After": "5"]
            )
        }
        return StepProblem.invalid("Taskcluster answered \(status) \(error.code)")
    }

    /// Whether a part of an address leads nowhere but down; branches and revisions come from whoever asks.
    private static func isPlain(_ text: String) -> Bool {
        !text.contains("..") && text.utf8.allSatisfy { (0x21...0x7e).contains($0) && !"?#%@\\".utf8.contains($0) }
    }

    /// A file of a source at a revision.
    private func file(
        _ path: String,
        _ repository: String,
        _ revision: String,
        code: String
    ) async throws -> HTTPResponse {
        guard Self.isPlain(repository), Self.isPlain(revision) else {
            throw StepProblem.invalid(
                "There is no revision \(revision.prefix(80)) of \(repository.prefix(200))",
                code: code
            )
        }
        return try await file("\(repository)/raw-file/\(revision)/\(path)", code: code)
    }

    private func file(_ url: String, code: String) async throws -> HTTPResponse {
        let response: HTTPResponse
        do {
            var request = HTTPRequest(url: url, timeout: .seconds(10))
            request.redirects = 3
            response = try await transport.send(request)
        } catch {
            throw StepProblem(503, "repository_unavailable", "\(url) cannot be reached")
        }
        if response.status >= 500 { throw StepProblem(503, "repository_unavailable", "\(url): \(response.status)") }
        guard response.status == 200 else {
            throw StepProblem.invalid("\(url) answered \(response.status)", code: code)
        }
        return response
    }

    /// The digests of the files in a folder of the archive, which stand in one of them.
    func sums(_ folder: String) async throws -> [UInt8] {
        guard Self.isPlain(folder) else {
            throw StepProblem.invalid("There is nothing at \(folder.prefix(200))", code: "no_sums")
        }
        return try await file("\(folder)/SHA512SUMS", code: "no_sums").body
    }

    /// The first line of a file of a source at a revision, without the blanks around it.
    func line(_ path: String, repository: String, revision: String) async throws -> String {
        let response = try await file(path, repository, revision, code: "no_file")
        let text = String(decoding: response.body.prefix(1000), as: UTF8.self)
        return String(text.drop(while: \.isWhitespace).prefix { !$0.isWhitespace })
    }

    /// The locales that a product's source at a revision has.
    func locales(_ application: String, repository: String, revision: String) async throws -> [String] {
        let path = "\(application)/locales/l10n-changesets.json"
        let response = try await file(path, repository, revision, code: "no_locales")
        guard let list = try? response.json().object else {
            throw StepProblem.invalid("\(path) of \(repository) is no list of locales", code: "no_locales")
        }
        return list.keys.sorted()
    }
}
