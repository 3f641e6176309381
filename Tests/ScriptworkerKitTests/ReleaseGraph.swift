// SPDX-License-Identifier: MPL-2.0

import Crypto
import Glibc
import HTTPClient
import JSON
import Schedules
import Synchronization
import Taskcluster
import TaskclusterClient
import WorkerKit

@testable import ScriptworkerKit

/// A deployment in memory with one release graph: decision → image, build → sign.
///
/// Tests change what they want to be wrong.
final class ReleaseGraph: HTTPTransport {
    struct Artifact {
        var content: [UInt8]
        var headers: HTTPHeaders = [:]
    }

    struct State {
        var definitions: [String: JSONValue] = [:]
        var artifacts: [String: [String: Artifact]] = [:]
        var runs: [String: [String]] = [:]
        var pages: [String: HTTPResponse] = [:]
        var requests: [String] = []
        /// Whether the queue hands out small artifacts together.
        var isGenerous = false
    }

    static let revision = "0123456789abcdef0123456789abcdef01234567"
    static let repository = "https://github.com/acme/product"
    static let root = "https://tc.example.com"
    let decision = Slugid.make()
    let build = Slugid.make()
    let image = Slugid.make()
    let sign = Slugid.make()
    let keys: [String: Curve25519.Signing.PrivateKey] = [
        "docker-worker": .init(), "generic-worker": .init(), "scriptworker": .init(),
    ]
    let directory: String
    let state = Mutex(State())
    private let created = "2026-03-01T10:00:00.000Z"

    init() throws {
        directory = "/tmp/slipway-chain-\(UInt64.random(in: 0 ... .max))"
        try TaskDirectories.make(directory)
        define()
    }

    deinit { TemporaryDirectory.remove(directory) }

    // MARK: - What is there

    func base(_ pool: String, _ payload: JSONValue, _ extra: JSONValue = [:]) -> JSONValue {
        let parts = pool.split(separator: "/").map(String.init)
        return [
            "provisionerId": .string(parts[0]), "workerType": .string(parts[1]), "taskQueueId": .string(pool),
            "schedulerId": "acme-level-3", "taskGroupId": .string(decision), "projectId": "none",
            "dependencies": [.string(decision)], "requires": "all-completed", "routes": [], "priority": "lowest",
            "retries": 5, "created": .string(created), "deadline": "2026-03-01T11:00:00.000Z",
            "expires": "2026-03-02T10:00:00.000Z", "scopes": [], "payload": payload,
            "metadata": [
                "name": "task", "description": "a task", "owner": "release@example.com",
                "source": .string("\(Self.repository)/raw/\(Self.revision)/.taskcluster.yml"),
            ],
            "tags": [:], "extra": extra,
        ]
    }

    private func define() {
        var top = base("acme-3/decision", decisionPayload, ["tasks_for": "cron", "cron": "{\"job\": \"nightly\"}"])
        top["dependencies"] = []
        let docker: JSONValue = [
            "image": "acme/image-builder@sha256:00", "features": [:], "env": [:], "maxRunTime": 60,
        ]
        var build = base(
            "acme-3/build",
            [
                "image": ["type": "task-image", "taskId": .string(image), "path": "public/image.tar.zst"],
                "features": [:], "env": [:], "maxRunTime": 60,
                "artifacts": ["public/build": ["expires": "2026-03-02T10:00:00.000Z"]],
            ],
            ["chainOfTrust": ["inputs": ["docker-image": .string(image)]]]
        )
        build["dependencies"] = [.string(decision), .string(image)]
        var sign = base(
            "scriptworker-k8s/signing",
            [
                "maxRunTime": 60,
                "upstreamArtifacts": [
                    [
                        "taskId": .string(self.build), "taskType": "build", "paths": ["public/build/a.zip"],
                        "formats": [],
                    ]
                ],
            ]
        )
        sign["dependencies"] = [.string(self.build)]
        let definitions = [
            decision: top, image: base("acme-3/images", docker), self.build: build, self.sign: sign,
        ]
        let builtFiles = [self.build: ["public/build/a.zip": "the product"], image: ["public/image.tar.zst": "layers"]]
        state.withLock { state in
            state.definitions = definitions
            for (task, files) in builtFiles {
                state.artifacts[task] = files.mapValues { Artifact(content: Array($0.utf8)) }
            }
        }
        pages()
    }

    var decisionPayload: JSONValue {
        [
            "image": "acme/decision@sha256:00", "command": ["taskgraph", "decision"], "maxRunTime": 600,
            "features": ["chainOfTrust": true],
            "env": [
                "ACME_HEAD_REPOSITORY": .string(Self.repository), "ACME_HEAD_REV": .string(Self.revision),
                "ACME_HEAD_REF": "main",
            ],
        ]
    }

    /// The in-tree template that makes exactly the decision task.
    var template: JSONValue {
        var task = base(
            "acme-3/decision",
            decisionPayload,
            ["tasks_for": "${tasks_for}", "cron": "{\"job\": \"nightly\"}"]
        )
        task["dependencies"] = []
        task["taskId"] = ["$eval": "as_slugid('decision')"]
        task["taskGroupId"] = ["$eval": "as_slugid('decision')"]
        task["created"] = ["$fromNow": ""]
        task["deadline"] = ["$fromNow": "1 hour"]
        task["expires"] = ["$fromNow": "1 day"]
        task["metadata"]?["source"] = "${repository.url}/raw/${push.revision}/.taskcluster.yml"
        return ["version": 1, "tasks": [task]]
    }

    func setTemplate(_ template: JSONValue) {
        let content = Base64.encoded(template.bytes())
        page(
            "https://api.github.com/repos/acme/product/contents/.taskcluster.yml?ref=\(Self.revision)",
            ["content": .string(content)]
        )
    }

    func page(_ url: String, _ json: JSONValue, status: Int = 200, headers: HTTPHeaders = [:]) {
        state.withLock { $0.pages[url] = HTTPResponse(status: status, headers: headers, body: json.bytes()) }
    }

    private func pages() {
        setTemplate(template)
        page(
            "https://projects.example.com/\(decision)",
            [
                "product": [
                    "repo": .string(Self.repository), "repo_type": "git", "branches": [["name": "main", "level": 3]],
                ]
            ]
        )
        page("https://api.github.com/repos/acme/product", ["html_url": .string(Self.repository)])
        let landed = HTTPResponse(
            status: 200,
            headers: ["Content-Type": "text/html"],
            body: Array("<li>main</li>".utf8)
        )
        state.withLock { $0.pages["\(Self.repository)/branch_commits/\(Self.revision)"] = landed }
    }

    // MARK: - Changes

    func change(_ task: String, _ body: (inout JSONValue) -> Void) {
        state.withLock { state in
            var definition = state.definitions[task] ?? [:]
            body(&definition)
            state.definitions[task] = definition
        }
    }

    /// Adds a task to those that are there.
    func add(_ task: String, _ pool: String, _ payload: JSONValue, extra: JSONValue = [:]) {
        let definition = base(pool, payload, extra)
        state.withLock { $0.definitions[task] = definition }
    }

    func artifact(_ task: String, _ name: String, _ content: [UInt8], headers: HTTPHeaders = [:]) {
        state.withLock { $0.artifacts[task, default: [:]][name] = Artifact(content: content, headers: headers) }
    }

    func remove(_ task: String, _ name: String) {
        state.withLock { _ = $0.artifacts[task]?.removeValue(forKey: name) }
    }

    /// Lets the decision task announce everything as it now is.
    func announce() {
        let definitions = state.withLock { $0.definitions }
        var graph = JSONObject()
        for (task, definition) in definitions where task != decision && definition["extra"]?["parent"] == nil {
            graph[task] = ["task": definition]
        }
        artifact(decision, "public/task-graph.json", JSONValue.object(graph).bytes())
        if state.withLock({ $0.artifacts[decision]?["public/actions.json"] }) == nil {
            artifact(decision, "public/actions.json", (["actions": []] as JSONValue).bytes())
        }
        artifact(decision, "public/parameters.yml", Array("level: '3'\n".utf8))
    }

    /// Lets every finished task's worker state what there is, or something else.
    func attest(
        _ only: [String]? = nil,
        key: [String: Curve25519.Signing.PrivateKey] = [:],
        _ change: (inout JSONValue) -> Void = { _ in }
    ) throws {
        let tasks = state.withLock { $0.definitions.keys.sorted() }
        for task in only ?? tasks.filter({ $0 != sign }) {
            let (definition, artifacts) = state.withLock { ($0.definitions[task] ?? [:], $0.artifacts[task] ?? [:]) }
            var listed = JSONObject()
            for (name, artifact) in artifacts where !name.hasPrefix("public/chain-of-trust") {
                listed[name] = ["sha256": .string(Self.digest(artifact.content))]
            }
            let layers = Self.digest(state.withLock { $0.artifacts[image]?["public/image.tar.zst"]?.content ?? [] })
            var statement: JSONValue = [
                "artifacts": .object(listed), "chainOfTrustVersion": 1,
                "environment": task == build ? ["imageArtifactHash": .string("sha256:\(layers)")] : [:],
                "runId": 0, "task": definition, "taskId": .string(task), "workerGroup": "g", "workerId": "w",
            ]
            change(&statement)
            let text = statement.bytes(.prettySorted)
            let implementation =
                definition["payload"]?["image"] != nil
                ? "docker-worker" : definition["payload"]?["mounts"] != nil ? "generic-worker" : "scriptworker"
            guard let key = key[task] ?? keys[implementation] else { continue }
            artifact(task, ChainOfTrustArtifact.name, text)
            artifact(task, ChainOfTrustArtifact.signatureName, Array(try key.signature(for: text)))
            state.withLock { $0.runs[task] = ["completed"] }
        }
    }

    static func digest(_ bytes: [UInt8]) -> String {
        SHA256.hash(data: bytes).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    // MARK: - Verification

    var policy: ChainPolicy {
        var document: JSONValue = [
            "cot_product": "acme", "cot_product_type": "github", "source_env_prefix": "ACME",
            "valid_decision_worker_pools": ["acme-3/decision"], "valid_docker_image_worker_pools": ["acme-3/images"],
            "trusted_vcs_rules": [
                [
                    "schemes": ["https", "ssh"], "netlocs": ["github.com"],
                    "path_regexes": [#"^(?P<path>/acme/(?:product|glean))(/|\.git|$)"#],
                ]
            ],
            "hg_git_mirrors": [:], "valid_tasks_for": ["cron", "action", "github-push"],
            "official_github_repos_owner": ["acme"],
            "cot_restricted_scopes": [
                "project:acme:cert:release": "product-trees", "project:acme:push:*": "product-trees",
            ],
            "cot_restricted_trees": ["product-trees": ["/acme/product"]],
            "prebuilt_docker_image_task_types": ["decision", "action", "docker-image"],
            "taskcluster_root_url": .string(Self.root), "verify_cot_signature": true,
            "project_configuration_url": .string("https://projects.example.com/\(decision)"),
        ]
        for key in ["work_dir", "artifact_dir", "task_log_dir", "log_dir", "ed25519_private_key_path"] {
            document[key] = "/nowhere"
        }
        var listed = JSONObject()
        for (name, key) in keys { listed[name] = [.string(Base64.encoded(Array(key.publicKey.rawRepresentation)))] }
        document["ed25519_public_keys"] = .object(listed)
        var file = ConfigurationFile(document, path: "test", environment: [:])
        return ChainPolicy(&file)
    }

    let lines = Mutex<[String]>([])

    /// Verifies the signing task with a policy; throws what speaks against it.
    @discardableResult
    func verify(_ change: (inout ChainPolicy) -> Void = { _ in }, head: String? = nil) async throws -> Chain {
        var policy = policy
        change(&policy)
        let log = ChainLog { level, text in self.lines.withLock { $0.append("\(level.rawValue) \(text)") } }
        let credentials = Hawk.Credentials(clientID: "worker", accessToken: "secret-of-the-worker", certificate: nil)
        let client = TaskclusterClient(
            rootURL: Self.root,
            credentials: { credentials },
            transport: self,
            retry: .once
        )
        let fast = TransferSchedule(attempts: 2, base: .milliseconds(1), maximum: .milliseconds(1))
        let rules = policy.artifactRules
        let verifier = ChainVerifier(
            policy: policy,
            client: client,
            downloader: ArtifactDownloader(
                client: client,
                transport: self,
                files: FileWork(),
                schedule: fast,
                isAllowed: { (try? rules.allow($0, $1)) ?? false },
                onProblem: { log.warning($0) }
            ),
            host: SourceHost(
                policy: policy,
                client: client,
                transport: self,
                directory: directory,
                schedule: fast,
                log: log
            ),
            directory: directory,
            concurrency: 5,
            schedule: fast,
            log: log
        )
        let task = head ?? sign
        let definition = state.withLock { $0.definitions[task] ?? [:] }
        return try await verifier.verify(task, definition, type: "signing")
    }

    /// Whether a file of a task has appeared among the inputs.
    func hasInput(_ task: String, _ name: String) -> Bool { access("\(directory)/cot/\(task)/\(name)", F_OK) == 0 }

    // MARK: - The wire

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let url = String(request.url.prefix { $0 != "#" })
        let response = state.withLock { state -> HTTPResponse in
            state.requests.append("\(request.method) \(url)")
            if let page = state.pages[url] { return page }
            if state.isGenerous, url == "\(Self.root)/api/queue/v1/artifacts/read", case .bytes(let body) = request.body
            {
                return Self.together((try? JSONValue(parsing: body)) ?? [:], state)
            }
            return queue(url, state)
        }
        if case .file(let path) = request.sink, response.status == 200 {
            do {
                try FileText.write(response.body, to: path)
            } catch {
                throw HTTPClientError(.file, "\(error)")
            }
        }
        return response
    }

    private static func together(_ body: JSONValue, _ state: State) -> HTTPResponse {
        let found = (body["artifacts"]?.array ?? []).compactMap { item -> JSONValue? in
            guard let task = item["taskId"]?.string, let name = item["name"]?.string,
                let artifact = state.artifacts[task]?[name]
            else { return nil }
            var entry: JSONValue = [
                "taskId": .string(task), "name": .string(name), "content": .string(Base64.encoded(artifact.content)),
            ]
            if let encoding = artifact.headers["Content-Encoding"] { entry["contentEncoding"] = .string(encoding) }
            return entry
        }
        return HTTPResponse(status: 200, body: (["artifacts": .array(found)] as JSONValue).bytes())
    }

    private func queue(_ url: String, _ state: State) -> HTTPResponse {
        let prefix = "\(Self.root)/api/queue/v1/task/"
        guard url.hasPrefix(prefix) else { return HTTPResponse(status: 404, body: Array("{}".utf8)) }
        let plain = url.dropFirst(prefix.count).prefix { $0 != "?" }
        let query = url.contains("continuationToken=1")
        let segments = plain.split(separator: "/", maxSplits: 2).map { PercentText.decoded(String($0)) }
        let task = segments[0]
        guard let definition = state.definitions[task] else { return HTTPResponse(status: 404, body: Array("{}".utf8)) }
        func json(_ value: JSONValue) -> HTTPResponse { HTTPResponse(status: 200, body: value.bytes()) }
        guard segments.count > 1 else { return json(definition) }
        if segments[1] == "status" {
            let runs = (state.runs[task] ?? []).map { ["state": .string($0)] as JSONValue }
            return json(["status": ["taskId": .string(task), "runs": .array(runs)]])
        }
        guard segments.count == 3 else {
            // Two pages, so that whoever reads only one misses half.
            let names = (state.artifacts[task] ?? [:]).keys.sorted()
            let half = query ? names.dropFirst(names.count / 2) : names.prefix(names.count / 2)
            var page: JSONValue = ["artifacts": .array(half.map { ["name": .string($0)] })]
            if !query { page["continuationToken"] = "1" }
            return json(page)
        }
        guard let artifact = state.artifacts[task]?[segments[2]] else {
            return HTTPResponse(status: 404, body: Array("{}".utf8))
        }
        return HTTPResponse(status: 200, headers: artifact.headers, body: artifact.content)
    }
}
