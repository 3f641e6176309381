// SPDX-License-Identifier: MPL-2.0

import Glibc
public import HTTPClient
public import JSON
import TaskclusterClient
import WorkerKit
import YAMLReader

/// What people do with chains outside of a worker: verify one, look at one, fetch a task's inputs for trying out a script.
public struct ChainTools: Sendable {
    /// What deviates from a configuration file, or from the built-in values when there is none.
    public struct Options: Sendable {
        /// The configuration file, if one is to be used.
        public var configurationPath: String?
        /// The product whose declarations apply.
        public var product: String?
        /// The deployment.
        public var rootURL: String?
        /// Whether signatures must verify.
        public var checksSignatures = false

        /// The built-in values.
        public init() {}
    }

    private let file: ConfigurationFile
    private let policy: ChainPolicy?
    private let client: TaskclusterClient

    /// Reads the configuration; throws ``ScriptworkerConfiguration/Invalid`` with every problem.
    public init(_ options: Options, transport: any HTTPTransport, needsPolicy: Bool) throws {
        let environment = ProcessEnvironment.current()
        let path = options.configurationPath
        var document: JSONValue = [:]
        if let path {
            do {
                document = try YAML.value(of: FileText.read(path))
            } catch {
                throw ScriptworkerConfiguration.Invalid(problems: ["\(path) cannot be read: \(error)"])
            }
        }
        // A tool needs no directories and no key of its own.
        for key in ["work_dir", "artifact_dir", "task_log_dir", "log_dir", "ed25519_private_key_path"]
        where document[key] == nil { document[key] = "/nowhere" }
        if let product = options.product ?? (document["cot_product"] == nil ? "firefox" : nil) {
            document["cot_product"] = .string(product)
        }
        if let rootURL = options.rootURL { document["taskcluster_root_url"] = .string(rootURL) }
        if options.checksSignatures { document["verify_cot_signature"] = true }
        if let token = environment["SCRIPTWORKER_GITHUB_OAUTH_TOKEN"] {
            document["github_oauth_token"] = .string(token)
        }
        var file = ConfigurationFile(document, path: path ?? "the built-in values", environment: environment)
        let policy = needsPolicy && file.problems.isEmpty ? ChainPolicy(&file) : nil
        guard file.problems.isEmpty else { throw ScriptworkerConfiguration.Invalid(problems: file.problems) }
        self.file = file
        self.policy = policy
        let source = CredentialSource.find(document, path: path ?? "", environment: environment)
        client = TaskclusterClient(
            rootURL: file.text("taskcluster_root_url"),
            credentials: { source?.current },
            transport: transport
        )
    }

    /// Verifies a task's chain, working below a directory; throws ``ChainProblem`` with every reason against it.
    public func verify(
        _ taskID: String,
        type: String,
        includingTask: Bool,
        directory: String,
        log: @escaping @Sendable (_ isDetail: Bool, _ text: String) -> Void
    ) async throws -> ChainReport {
        guard let policy else { throw ChainProblem("no product is declared") }
        let chainLog = ChainLog { level, text in log(level == .debug, "\(level.rawValue) - \(text)") }
        let verifier = file.verifier(policy, client: client, files: FileWork(), directory: directory, log: chainLog)
        let definition: JSONValue
        do {
            definition = try await client.call("queue", "GET", ["task", taskID])
        } catch {
            throw ChainProblem("cannot read the task \(taskID): \(error)")
        }
        let start = ContinuousClock.now
        let chain = try await verifier.verify(taskID, definition, type: type, includingHead: includingTask)
        return ChainReport(chain, policy, duration: ContinuousClock.now - start)
    }

    /// Writes `task.json` and fetches the task's inputs, unverified, the way a script will find them; returns what was fetched.
    public func createWorkDirectory(_ path: String, for taskID: String, overwriting: Bool) async throws -> [String] {
        if access(path, F_OK) == 0 {
            guard overwriting else { throw ChainProblem("\(path) exists already") }
            try TaskDirectories.clean(path)
        }
        try TaskDirectories.make(path)
        let definition: JSONValue
        do {
            definition = try await client.call("queue", "GET", ["task", taskID])
        } catch {
            throw ChainProblem("cannot read the task \(taskID): \(error)")
        }
        try FileText.write(definition.bytes(.prettySorted), to: "\(path)/task.json")
        let payload: TaskPayload
        do throws(TaskPayload.Problem) {
            payload = try TaskPayload(task: definition)
        } catch {
            throw ChainProblem("\(error)")
        }
        let downloader = file.downloader(client, FileWork(), rules: nil) { _ in }
        var fetched: [String] = []
        for entry in payload.upstream {
            for name in entry.paths where !name.contains("*") {
                let place = "\(path)/cot/\(entry.taskID)/\(name)"
                try TaskDirectories.make(String(place[..<(place.lastIndex(of: "/") ?? place.endIndex)]))
                do throws(ArtifactDownloader.Failure) {
                    try await downloader.download(name, of: entry.taskID, to: place)
                    fetched.append(place)
                } catch {
                    guard entry.isOptional, case .absent = error else {
                        throw ChainProblem("cannot fetch \(name) of \(entry.taskID): \(error)")
                    }
                }
            }
        }
        return fetched
    }
}

/// A verified chain, for people and programs.
public struct ChainReport: Sendable {
    /// One task of the chain.
    public struct Entry: Sendable, Hashable {
        /// How it was reached.
        public let name: String
        /// The task.
        public let taskID: String
        /// The kind of worker that ran it.
        public let implementation: String
        /// The pool it ran in.
        public let pool: String
        /// The public key that verified its worker's statement.
        public let signer: String?
        /// The trusted repository it comes from.
        public let repository: String?
        /// How many artifacts its worker lists.
        public let artifacts: Int?
        /// The task that created it.
        public let parent: String
        /// The type it is used as.
        public let type: String
    }

    /// The task itself first, then what it rests on, breadth first.
    public let entries: [Entry]
    /// How long verifying took.
    public let duration: Duration

    init(_ chain: Chain, _ policy: ChainPolicy, duration: Duration) {
        self.duration = duration
        let trace = SourceTrace(chain: chain, policy: policy)
        entries = chain.all.map { task in
            let statement = chain.statements[task.taskID]
            return Entry(
                name: task.name,
                taskID: task.taskID,
                implementation: task.implementation.rawValue,
                pool: task.pool,
                signer: statement?.signer,
                repository: task.source.flatMap { SourceURL($0) }.flatMap { try? trace.trustedPath($0) },
                artifacts: statement?.count,
                parent: task.parentID,
                type: task.kind.name
            )
        }
    }

    /// One member per task.
    public var json: JSONValue {
        [
            "verified": true,
            "seconds": .init(duration / .seconds(1)),
            "links": .array(
                entries.map { entry in
                    [
                        "name": .string(entry.name), "taskId": .string(entry.taskID), "type": .string(entry.type),
                        "workerImplementation": .string(entry.implementation), "workerPool": .string(entry.pool),
                        "publicKey": entry.signer.map { .string($0) } ?? nil,
                        "repository": entry.repository.map { .string($0) } ?? nil,
                        "artifacts": entry.artifacts.map { .init($0) } ?? nil,
                        "parent": .string(entry.parent),
                    ]
                }
            ),
        ]
    }

    /// The report as text of one line.
    public var jsonText: String { json.text() }

    /// The chain as an indented tree.
    public var tree: String {
        entries.sorted { $0.name < $1.name }.map { entry in
            let depth = entry.name.count { $0 == ":" }
            var line = String(repeating: "  ", count: depth) + (entry.name.split(separator: ":").last ?? "")
            line += " \(entry.taskID)  \(entry.type) on \(entry.implementation) (\(entry.pool))"
            line += ", repository \(entry.repository ?? "not trusted")"
            if let artifacts = entry.artifacts { line += ", \(artifacts) artifacts" }
            if let signer = entry.signer { line += ", key \(signer)" }
            return line
        }.joined(separator: "\n")
    }
}

extension ChainProblem {
    /// The complaints as JSON of one line.
    public var jsonText: String {
        let json: JSONValue = ["verified": false, "code": .init(Int(code.number)), "problems": .init(lines)]
        return json.text()
    }
}

/// A directory for a moment.
public enum TemporaryDirectory {
    /// Makes a fresh one.
    public static func make() throws -> String {
        var template = Array("\(ProcessEnvironment.current()["TMPDIR"] ?? "/tmp")/scriptworker-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FileError("cannot make a temporary directory", errno) }
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Removes one with everything in it.
    public static func remove(_ path: String) {
        try? TaskDirectories.clean(path)
        rmdir(path)
    }
}
