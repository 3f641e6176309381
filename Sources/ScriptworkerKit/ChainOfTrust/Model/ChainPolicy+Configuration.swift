// SPDX-License-Identifier: MPL-2.0

import Expressions
import JSON

extension ChainPolicy {
    /// Reads the declarations of a configuration; what is wrong with them is added to its problems.
    init(_ file: inout ConfigurationFile) {
        var reader = PolicyReader(file: file)
        product = file.text("cot_product")
        sourceKinds = reader.texts("cot_product_type").compactMap { name in
            let kind = SourceKind(rawValue: name)
            if kind == nil { reader.fail("cot_product_type", "must be hg, github or a list of both") }
            return kind
        }
        decisionPools = Set(reader.texts("valid_decision_worker_pools"))
        imagePools = Set(reader.texts("valid_docker_image_worker_pools"))
        sourceRules = reader.rules("trusted_vcs_rules", group: "path")
        gitMirrors = reader.map("hg_git_mirrors") { $0.string }
        tasksFor = Set(reader.texts("valid_tasks_for"))
        officialOwners = Set(reader.texts("official_github_repos_owner").filter { !$0.isEmpty })
        restrictedScopes = reader.map("cot_restricted_scopes") { $0.string }
        restrictedTrees = reader.map("cot_restricted_trees") { value in
            value.array.map { Set($0.compactMap(\.string)) }
        }
        for level in Set(restrictedScopes.values) where restrictedTrees[level] == nil {
            reader.fail("cot_restricted_scopes", "names the trees \(level), which cot_restricted_trees lacks")
        }
        let prebuilt = reader.texts("prebuilt_docker_image_task_types")
        prebuiltImageTypes = prebuilt == ["any"] ? nil : Set(prebuilt)
        environmentPrefix = file.text("source_env_prefix")
        if environmentPrefix.isEmpty { reader.fail("source_env_prefix", "must be a name") }
        alternateEnvironmentPrefix = file.values["alternate_source_env_prefix"]?.string

        for (implementation, texts) in file.values["ed25519_public_keys"]?.object ?? [:] {
            guard let texts = texts.array ?? texts.string.map({ [.string($0)] }) else {
                reader.fail("ed25519_public_keys", "\(implementation) must be a list of keys")
                continue
            }
            keys[implementation] = texts.compactMap { text in
                let key = Key(text.string ?? "")
                if key == nil { reader.fail("ed25519_public_keys", "a key of \(implementation) is not 32 bytes") }
                return key
            }
        }
        hashAlgorithms = Set(file.texts("valid_hash_algorithms"))
        for name in hashAlgorithms.subtracting(["sha256", "sha512"]) {
            reader.fail("valid_hash_algorithms", "\(name) is not among sha256 and sha512")
        }
        artifactRules = reader.rules("valid_artifact_rules", group: "filepath")
        scriptworkerProvisioners = Set(file.texts("scriptworker_provisioners")).union(["scriptworker-prov-v1"])
        longestChain = file.whole("max_chain_length")
        checksSignatures = file.flag("verify_cot_signature")
        isStrict = file.flag("strict_cot")
        for (name, value) in file.values["extra_task_types"]?.object ?? [:] {
            guard let checks = value.string.flatMap(TaskKind.Checks.init), checks != .parent else {
                reader.fail("extra_task_types", "\(name) must be scriptworker, build or docker-image")
                continue
            }
            kinds[name] = TaskKind(name: name, checks: checks)
        }
        for value in file.values["vcs_file_url_templates"]?.array ?? [] {
            guard let text = value["match"]?.string, let url = value["url"]?.string else {
                reader.fail("vcs_file_url_templates", "each entry needs match, a regular expression, and url")
                continue
            }
            guard let match = reader.expression("vcs_file_url_templates", text) else { continue }
            fileLocations.append(FileLocation(match: match, url: url))
        }
        templatePath = file.text("template_path")
        pushlogURL = file.text("pushlog_url")
        projectsURL = file.text("project_configuration_url")
        githubURL = file.text("github_api_url")
        githubToken = file.text("github_oauth_token")
        githubApplication = file.text("github_app_name")
        for problem in reader.problems { file.fail(problem) }
    }
}

/// Reads values that belong to a product; each must be there.
private struct PolicyReader {
    let file: ConfigurationFile
    var problems: [String] = []

    mutating func fail(_ key: String, _ text: String) { problems.append("\(key): \(text)") }

    private mutating func value(_ key: String) -> JSONValue? {
        let value = file.values[key] ?? .null
        guard value.isNull else { return value }
        problems.append("\(key) needs to be defined for the product \(file.text("cot_product"))!")
        return nil
    }

    /// A list of texts, or one text.
    mutating func texts(_ key: String) -> [String] {
        guard let value = value(key) else { return [] }
        if let text = value.string { return [text] }
        guard let list = value.array, list.allSatisfy({ $0.string != nil }) else {
            fail(key, "must be a text or a list of texts")
            return []
        }
        return list.compactMap(\.string)
    }

    mutating func map<Value>(_ key: String, _ read: (JSONValue) -> Value?) -> [String: Value] {
        guard let value = value(key) else { return [:] }
        guard let object = value.object else {
            fail(key, "must be a mapping")
            return [:]
        }
        var result: [String: Value] = [:]
        for (name, value) in object {
            result[name] = read(value)
            if result[name] == nil { fail(key, "the value of \(name) is of the wrong kind") }
        }
        return result
    }

    /// An expression in Python's language.
    mutating func expression(_ key: String, _ text: String) -> RegularExpression? {
        do throws(RegularExpression.Problem) {
            return try RegularExpression(text)
        } catch {
            fail(key, "\(text) is not a regular expression: \(error.message) at \(error.offset)")
            return nil
        }
    }

    mutating func rules(_ key: String, group: String) -> [URLRule] {
        guard let value = value(key) else { return [] }
        guard let list = value.array else {
            fail(key, "must be a list of rules")
            return []
        }
        return list.compactMap { rule in
            let schemes = rule["schemes"]?.array?.compactMap(\.string)
            let hosts = rule["netlocs"]?.array?.compactMap(\.string)
            let texts = rule["path_regexes"]?.array?.compactMap(\.string)
            guard let schemes, let hosts, let texts else {
                fail(key, "each rule needs schemes, netlocs and path_regexes")
                return nil
            }
            let patterns = texts.compactMap { text in
                let pattern = expression(key, text)
                if pattern?.names.contains(group) == false { fail(key, "\(text) lacks the group \(group)") }
                return pattern
            }
            return URLRule(
                schemes: Set(schemes),
                hosts: Set(hosts),
                patterns: patterns,
                needsSecret: rule["require_secret"]?.bool ?? false
            )
        }
    }
}
