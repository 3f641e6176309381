// SPDX-License-Identifier: MPL-2.0

import Expressions
import JSON
import Taskcluster

/// The merged and checked content of a configuration file: every key has a value of its kind.
struct ConfigurationFile: Sendable {
    /// All keys with their values.
    private(set) var values = JSONObject()
    /// What is wrong, one line each; empty when the configuration can be used.
    private(set) var problems: [String] = []
    /// What was accepted although it is not quite right.
    private(set) var warnings: [String] = []

    /// Merges a document over the defaults and checks every value.
    init(_ document: JSONValue, path: String, environment: [String: String]) {
        guard let object = document.object else {
            problems = ["\(path) must hold keys and values"]
            return
        }
        for key in ConfigurationKey.all { values[key.name] = key.standard }
        if let url = environment["TASKCLUSTER_ROOT_URL"] { values["taskcluster_root_url"] = .string(url) }
        if let name = environment["SCRIPTWORKER_WORKER_ID"] { values["worker_id"] = .string(name) }
        for (name, value) in object {
            if ConfigurationKey.all.contains(where: { $0.name == name }) {
                values[name] = value
            } else {
                problems.append("Unknown key \(name) in \(path)!")
            }
        }
        let settled = ProductTables.apply(to: &self, given: Set(object.keys))
        addOwnArtifactRule(unless: settled.contains("valid_artifact_rules"))
        for key in ConfigurationKey.all { check(key) }
        checkIdentifiers()
        checkStatuses()
    }

    /// Adds a problem found elsewhere.
    mutating func fail(_ problem: String) { problems.append(problem) }

    /// Adds a warning found elsewhere.
    mutating func warn(_ warning: String) { warnings.append(warning) }

    /// Sets a value that was found elsewhere.
    mutating func set(_ name: String, _ value: JSONValue) { values[name] = value }

    func text(_ name: String) -> String { values[name]?.string ?? "" }
    func whole(_ name: String) -> Int { values[name]?.int ?? 0 }
    func seconds(_ name: String) -> Duration { .milliseconds((values[name]?.double ?? 0) * 1000) }
    func flag(_ name: String) -> Bool { values[name]?.bool ?? false }
    func texts(_ name: String) -> [String] { (values[name]?.array ?? []).compactMap(\.string) }

    /// Without rules of their own, operators of another deployment than the listed ones mean the one they configured.
    private mutating func addOwnArtifactRule(unless isGiven: Bool) {
        guard !isGiven, let url = SourceURL(text("taskcluster_root_url")) else { return }
        let base = url.path.hasSuffix("/") ? String(url.path.dropLast()) : url.path
        let pattern = #"/api/queue/v1/task/(?P<taskId>[^/]+)(/runs/\d+)?/artifacts/(?P<filepath>.*)$"#
        let rule: JSONValue = [
            "schemes": [.string(url.scheme)], "netlocs": [.string(url.authority)],
            "path_regexes": [.string("^" + RegularExpression.escaped(base) + pattern)],
        ]
        values["valid_artifact_rules"] = .array((values["valid_artifact_rules"]?.array ?? []) + [rule])
    }

    private mutating func check(_ key: ConfigurationKey) {
        let value = values[key.name] ?? .null
        if value.isNull {
            guard key.kind == .optionalText || key.kind == .byProduct else {
                problems.append("\(key.name) needs to be defined!")
                return
            }
            return
        }
        // A key that comes through a descriptor has no file.
        if value.string == "...", key.name == "ed25519_private_key_path", whole("signing_key_fd") > 0 { return }
        if value.string == "..." {
            problems.append("\(key.name) needs to be defined!")
            return
        }
        switch key.kind {
        case .text, .optionalText: expect(value.string != nil, key, "a string")
        case .flag: expect(value.bool != nil, key, "true or false")
        case .map: expect(value.object != nil, key, "a mapping")
        case .list: expect(value.array != nil, key, "a list")
        case .texts:
            expect(value.array?.allSatisfy { $0.string != nil } ?? false, key, "a list of strings")
        case .whole, .seconds: checkNumber(value, key)
        case .byProduct: break
        }
    }

    private mutating func checkNumber(_ value: JSONValue, _ key: ConfigurationKey) {
        var number = value
        if let text = value.string {
            guard let whole = Int(text) else { return expect(false, key, "a number") }
            warnings.append("\(key.name) is the string \"\(text)\"; taking it as a number")
            number = .init(whole)
        } else if value.int == nil, key.kind == .seconds, value.double != nil, value != key.standard {
            warnings.append("\(key.name) is a fraction of seconds, which other workers refuse")
        }
        guard let double = number.double, number.int != nil || key.kind == .seconds else {
            return expect(false, key, "an integer")
        }
        guard double >= 0, double < 1e15 else { return expect(false, key, "a positive number") }
        values[key.name] = number
    }

    private mutating func expect(_ condition: Bool, _ key: ConfigurationKey, _ wanted: String) {
        if !condition { problems.append("\(key.name) must be \(wanted)") }
    }

    private mutating func checkIdentifiers() {
        for name in ["provisioner_id", "worker_group", "worker_type", "worker_id"] {
            guard let text = values[name]?.string, text != "..." else { continue }
            let isValid =
                (1...38).contains(text.utf8.count)
                && text.utf8.allSatisfy { byte in
                    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                        || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
                        || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                        || byte == UInt8(ascii: "-") || byte == UInt8(ascii: "_")
                }
            if !isValid { problems.append("\(name) doesn't match \"^[a-zA-Z0-9-_]{1,38}$\": \(text.prefix(100))") }
        }
    }

    private mutating func checkStatuses() {
        for (code, reason) in values["reversed_statuses"]?.object ?? [:] {
            if Int32(code) == nil { problems.append("reversed_statuses: \(code) is not an exit code") }
            guard let reason = reason.string, ResolutionCode.reasons.contains(reason) else {
                problems.append("reversed_statuses: the value of \(code) is not a reason the queue knows")
                continue
            }
        }
        if !(0...255).contains(whole("task_max_timeout_status")) {
            problems.append("task_max_timeout_status must be from 0 to 255")
        }
        for name in ["max_concurrent_uploads", "max_concurrent_downloads", "task_max_timeout", "log_alive_interval"] {
            if values[name]?.double == 0 { problems.append("\(name) must be at least 1") }
        }
        if !["cot", "always"].contains(text("download_upstream_artifacts")) {
            problems.append("download_upstream_artifacts must be cot or always")
        }
        let pushlog = text("pushlog_url")
        if pushlog != "none", !pushlog.contains("{revision}") {
            problems.append("pushlog_url must hold {revision}, or be none")
        }
        if (1...2).contains(whole("signing_key_fd")) { problems.append("signing_key_fd must be at least 3") }
        if seconds("claim_timeout") == .zero { problems.append("claim_timeout must be more than 0") }
        if !["text", "json"].contains(text("log_format")) { problems.append("log_format must be text or json") }
        if !["sha256", "sha512"].contains(text("chain_of_trust_hash_algorithm")) {
            problems.append("chain_of_trust_hash_algorithm must be sha256 or sha512")
        }
    }
}
