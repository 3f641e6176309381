// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON
import JSONSchema
import Processes
import Taskcluster
import YAMLReader

/// A configuration that has passed every check, and the file it came from.
public struct ScriptworkerConfiguration: Sendable {
    /// The configuration cannot be used; every reason is given.
    public struct Invalid: Error, Sendable, CustomStringConvertible {
        /// One line per problem.
        public let problems: [String]
        /// All problems, a line each.
        public var description: String { problems.joined(separator: "\n") }
    }

    /// The file it came from.
    let path: String
    let file: ConfigurationFile
    /// How scripts are confined, if they are.
    let sandbox: Sandbox?
    let environment: [String: String]
    let credentials: CredentialSource
    let signingKey: SigningKey?
    /// What the worker's own statements must satisfy beyond what they always do.
    let statementSchema: JSONSchema?
    /// What tasks must rest on; nil when that is not verified.
    let policy: ChainPolicy?
    let reversedStatuses: [Int32: String]
    /// Whether this process runs nothing but this worker, so that every orphan in it is the script's.
    public var ownsProcess = true
    /// What was accepted although it is not quite right.
    public let warnings: [String]

    /// Reads and checks a file with the environment of this process.
    public init(path: String, forWorking: Bool = false) throws {
        try self.init(path: path, environment: ProcessEnvironment.current(), forWorking: forWorking)
    }

    /// Reads and checks a file; throws ``Invalid`` with all problems at once.
    ///
    /// Only a worker has the descriptor of `signing_key_fd`; others do without the key.
    public init(path: String, environment: [String: String], forWorking: Bool = false) throws {
        let text: String
        do {
            text = try FileText.read(path)
        } catch {
            throw Invalid(problems: ["\(path) doesn't exist or cannot be read! Please create one"])
        }
        let document: JSONValue
        do {
            document = try YAML.value(of: text)
        } catch {
            throw Invalid(problems: ["\(path) cannot be parsed: \(error)"])
        }
        var file = ConfigurationFile(document, path: path, environment: environment)
        let source = CredentialSource.find(document, path: path, environment: environment)
        if source == nil { file.fail("credentials needs to be defined!") }
        if file.problems.isEmpty { Self.checkPlaces(&file, home: environment["HOME"]) }
        var policy: ChainPolicy?
        if file.problems.isEmpty, file.flag("verify_chain_of_trust") { policy = Self.policy(&file) }
        let key = file.problems.isEmpty ? Self.signingKey(&file, forWorking: forWorking) : nil
        statementSchema = Self.statementSchema(&file)
        let listen = file.text("status_listen")
        if !listen.isEmpty, StatusServer.parts(listen) == nil { file.fail("status_listen must be address:port") }
        let sandbox = file.problems.isEmpty ? Self.sandbox(&file) : nil
        guard file.problems.isEmpty, let source else { throw Invalid(problems: file.problems) }
        var reversed: [Int32: String] = [:]
        for (code, reason) in file.values["reversed_statuses"]?.object ?? [:] {
            if let code = Int32(code) { reversed[code] = reason.string }
        }
        self.path = path
        self.file = file
        self.environment = environment
        credentials = source
        signingKey = key
        self.policy = policy
        self.sandbox = sandbox
        reversedStatuses = reversed
        warnings = file.warnings
    }

    private static func signingKey(_ file: inout ConfigurationFile, forWorking: Bool) -> SigningKey? {
        guard file.flag("sign_chain_of_trust") else { return nil }
        let descriptor = file.whole("signing_key_fd")
        do {
            if descriptor > 0 {
                return forWorking ? try SigningKey(descriptor: Int32(clamping: descriptor)) : nil
            }
            let key = try SigningKey(path: file.text("ed25519_private_key_path"))
            if key.isExposed { file.warn("ed25519_private_key_path is readable by group or others") }
            return key
        } catch {
            file.fail("\(descriptor > 0 ? "signing_key_fd" : "ed25519_private_key_path"): \(error)")
            return nil
        }
    }

    private static func statementSchema(_ file: inout ConfigurationFile) -> JSONSchema? {
        let path = file.text("cot_schema_path")
        guard !path.isEmpty else { return nil }
        do {
            return try JSONSchema(YAML.value(of: FileText.read(path)), unknownKeywords: .ignore)
        } catch {
            file.fail("cot_schema_path: \(path) cannot be used: \(error)")
            return nil
        }
    }

    private static func sandbox(_ file: inout ConfigurationFile) -> Sandbox? {
        let name = file.text("script_user")
        let limits = file.values["script_limits"]?.object ?? [:]
        guard file.flag("sandbox") || !name.isEmpty || !limits.isEmpty else { return nil }
        var sandbox = Sandbox()
        if !name.isEmpty {
            if let user = getpwnam(name), user.pointee.pw_uid != 0 {
                (sandbox.userID, sandbox.groupID) = (user.pointee.pw_uid, user.pointee.pw_gid)
            } else {
                file.fail("script_user: there is no user \(name) other than root")
            }
            if geteuid() != 0 { file.fail("script_user: only root can run scripts as another user") }
        }
        if !file.flag("sandbox") { sandbox.temporaryBytes = 0 }
        for (key, value) in limits {
            guard let number = value.int, number > 0 else {
                file.fail("script_limits: \(key) must be a positive number")
                continue
            }
            switch key {
            case "tmp_bytes": if file.flag("sandbox") { sandbox.temporaryBytes = number }
            case "file_bytes": sandbox.fileBytes = number
            case "memory_bytes": sandbox.memoryBytes = number
            case "processes": sandbox.processes = number
            case "open_files": sandbox.openFiles = number
            case "cpu_seconds": sandbox.processorSeconds = number
            default: file.fail("script_limits: \(key) is not a limit")
            }
        }
        for key in ["work_dir", "artifact_dir"] where sandbox.temporaryBytes > 0 {
            let path = file.text(key)
            if path.hasPrefix("/tmp/") || path.hasPrefix("/var/tmp/") {
                file.fail("sandbox: \(key) must not be below /tmp, which the script gets anew")
            }
        }
        return sandbox
    }

    private static func policy(_ file: inout ConfigurationFile) -> ChainPolicy? {
        guard !file.text("cot_product").isEmpty else {
            file.fail("verify_chain_of_trust needs cot_product")
            return nil
        }
        let policy = ChainPolicy(&file)
        let type = file.text("cot_job_type")
        if policy.kinds[type] == nil {
            file.fail("cot_job_type: \(type) is not a valid task type: \(policy.kinds.keys.sorted())")
        }
        if !policy.checksSignatures {
            file.warn(
                "verify_cot_signature is off: chains are checked against statements that anybody may have written"
            )
        }
        if !policy.scriptworkerProvisioners.contains(file.text("provisioner_id")) {
            file.warn("scriptworker_provisioners lacks provisioner_id: this worker's own tasks will not verify")
        }
        return policy
    }

    var rootURL: String {
        let url = file.text("taskcluster_root_url")
        return url.hasSuffix("/") ? String(url.dropLast()) : url
    }
    var queueID: String { "\(file.text("provisioner_id"))/\(file.text("worker_type"))" }
    var workDirectory: String { file.text("work_dir") }
    var artifactDirectory: String { file.text("artifact_dir") }
    var taskLogDirectory: String { file.text("task_log_dir") }
    var logDirectory: String { file.text("log_dir") }
    var heartbeatPath: String {
        let path = file.text("heartbeat_path")
        return path.isEmpty ? "\(logDirectory)/heartbeat.json" : path
    }

    /// The tables of products that need none of their own, as YAML.
    public static var builtInProducts: String { BuiltInProducts.yaml }

    /// The whole effective configuration as JSON (and so as YAML), secrets masked; for the Python worker without what it does not know.
    public func printed(forPython: Bool = false) -> String {
        var values = file.values
        values["credentials"] = ["clientId": .string(credentials.current.clientID), "accessToken": "********"]
        if values["github_oauth_token"]?.string != "" { values["github_oauth_token"] = "********" }
        if forPython {
            for key in ConfigurationKey.all where !key.isShared { values.removeValue(forKey: key.name) }
        }
        return JSONValue.object(values).text(.pretty)
    }

    private static func checkPlaces(_ file: inout ConfigurationFile, home: String?) {
        var places: [(name: String, path: String)] = []
        for name in ["work_dir", "artifact_dir", "task_log_dir", "log_dir"] {
            let path = file.text(name)
            let parts = path.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
            guard path.hasPrefix("/"), !parts.isEmpty, parts.allSatisfy({ !["", ".", ".."].contains($0) }) else {
                file.fail("\(name) must be an absolute path without . and .., and not the root")
                continue
            }
            if let home, path == (home.count > 1 && home.hasSuffix("/") ? String(home.dropLast()) : home) {
                file.fail("\(name) must not be the home directory")
            }
            if file.flag("require_dir_marker"), name != "task_log_dir", !TaskDirectories.mayBeOurs(path) {
                file.fail("\(name): \(path) has content but no \(TaskDirectories.marker) in it, so it is not emptied")
            }
            for other in places {
                let isNested =
                    path == other.path || path.hasPrefix(other.path + "/") || other.path.hasPrefix(path + "/")
                let isTaskLog =
                    name == "task_log_dir" && path.hasPrefix(other.path + "/") && other.name == "artifact_dir"
                if isNested, !isTaskLog { file.fail("\(name) and \(other.name) must not be one inside the other") }
            }
            places.append((name, path))
        }
        guard let program = file.texts("task_script").first else { return file.fail("task_script must name a program") }
        if program.contains("/"), access(program, X_OK) != 0 { file.fail("task_script: \(program) is not executable") }
    }
}
