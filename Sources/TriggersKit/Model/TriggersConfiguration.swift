// SPDX-License-Identifier: MPL-2.0

import BridgesKit
import Core
import HooksKit
import JSON
import JSONSchema

/// Which triggers run, as read from the configuration file.
struct TriggersConfiguration: Sendable {
    /// Phabricator, as its triggers know it.
    struct PhabricatorSettings: Sendable {
        let url: String
        let token: Secret
        var interval = Duration.seconds(60)
        var visibility = RunWorker.Visibility()
        /// What Harbormaster shows; without any, builds are not announced.
        var webhookSecrets: [Secret] = []
    }

    /// Who is told how the tasks ended.
    struct ReportSettings: Sendable {
        let addresses: [String]
        var interval = Duration.seconds(7 * 3600)
    }

    var triggers: [Trigger] = []
    var phabricator: PhabricatorSettings?
    var report: ReportSettings?
}

/// All that is wrong with a configuration.
struct TriggersConfigurationError: Error, Equatable {
    /// One line each.
    let problems: [String]
}

// MARK: - Reading

extension TriggersConfiguration {
    /// Reads a configuration, checks it against the schema and fetches the secrets; reports every problem at once.
    init(_ text: [UInt8], schema: JSONSchema, secrets: SecretSources) throws(TriggersConfigurationError) {
        let value: JSONValue
        do { value = try JSONValue(parsing: text) } catch {
            throw TriggersConfigurationError(problems: ["line \(error.line): \(error.message)"])
        }
        // What the schema would say of these two helps nobody.
        var problems = Self.misunderstandings(value)
        guard problems.isEmpty else { throw TriggersConfigurationError(problems: problems) }
        problems = schema.validate(value).map { $0.described(root: "configuration") }
        guard problems.isEmpty else { throw TriggersConfigurationError(problems: problems) }
        var reader = Reader(secrets: secrets)
        self = reader.configuration(value)
        guard reader.problems.isEmpty else { throw TriggersConfigurationError(problems: reader.problems) }
    }

    private static func misunderstandings(_ value: JSONValue) -> [String] {
        guard let triggers = value["triggers"]?.array else { return [] }
        guard !triggers.isEmpty else {
            return [
                "triggers is empty, so nothing would ever happen: list one at least, or do without TRIGGERS_CONFIG"
            ]
        }
        let known = TriggerType.allCases.map(\.rawValue)
        return triggers.enumerated().compactMap { place, trigger in
            guard let type = trigger["type"]?.string, !known.contains(type) else { return nil }
            if type == "shipit-step" {
                return "triggers/\(place) is of type shipit-step: take it away, ShipIt's services listen by themselves"
            }
            return "triggers/\(place) is of the unknown type \(type); the types are \(known.joined(separator: ", "))"
        }
    }

    /// Walks through a value that satisfies the schema and notes what the schema cannot say.
    private struct Reader {
        let secrets: SecretSources
        var problems: [String] = []

        mutating func configuration(_ value: JSONValue) -> TriggersConfiguration {
            var result = TriggersConfiguration()
            for (place, trigger) in (value["triggers"]?.array ?? []).enumerated() {
                guard let trigger = self.trigger(trigger, "triggers/\(place)") else { continue }
                if result.triggers.contains(where: { $0.name == trigger.name }) {
                    problems.append("triggers/\(place) has the name \(trigger.name) like another one; give it a name")
                }
                result.triggers.append(trigger)
            }
            result.phabricator = value["phabricator"].flatMap { phabricator($0) }
            let needs = result.triggers.filter(\.needsPhabricator).map(\.name)
            if !needs.isEmpty, value["phabricator"] == nil {
                problems.append("phabricator is missing, which \(needs.joined(separator: " and ")) need")
            }
            if needs.isEmpty, value["phabricator"] != nil {
                problems.append("phabricator is there, but no trigger is about it")
            }
            if let report = value["report"] {
                result.report = ReportSettings(
                    addresses: report["to"]?.array?.compactMap(\.string) ?? [],
                    interval: duration(report["interval"], "report/interval", .seconds(7 * 3600), .seconds(31 * 86_400))
                )
            }
            return result
        }

        private mutating func trigger(_ value: JSONValue, _ place: String) -> Trigger? {
            guard let type = value["type"]?.string.flatMap(TriggerType.init(rawValue:)) else { return nil }
            let options = ["repositoryUrl", "routingKey", "taskNames", "repositories", "reviewers"]
            for option in options where value[option] != nil && !Self.options(of: type).contains(option) {
                problems.append("\(place)/\(option) means nothing for \(type.rawValue)")
            }
            let source: Trigger.Source
            var usual: HookName?
            switch type {
            case .mozReview:
                let url = value["repositoryUrl"]?.string ?? "https://reviewboard-hg.mozilla.org/gecko"
                source = .mozReview(repositoryURL: url)
            case .phabricator:
                source = .phabricator
            case .coverage:
                var rule = CoverageRule()
                if let key = value["routingKey"]?.string { rule.routingKey = key }
                if let names = value["taskNames"]?.array { rule.taskNames = names.compactMap(\.string) }
                if let list = value["repositories"]?.array { rule.repositories = list.compactMap(\.string) }
                source = .coverage(rule)
            case .risk:
                let reviewers = value["reviewers"]?.array?.compactMap(\.string) ?? []
                if reviewers.isEmpty { problems.append("\(place)/reviewers is missing: whose reviews count?") }
                source = .risk(reviewers: Set(reviewers))
                usual = HookName(group: "project-relman", hook: "bugbug-classify-patch")
            }
            let group = value["hookGroupId"]?.string ?? usual?.group
            let hook = value["hookId"]?.string ?? usual?.hook
            guard let group, let hook else {
                problems.append("\(place) does not say which hook it triggers: give it hookGroupId and hookId")
                return nil
            }
            return Trigger(
                name: value["name"]?.string ?? type.rawValue,
                type: type,
                hook: HookName(group: group, hook: hook),
                source: source
            )
        }

        private static func options(of type: TriggerType) -> [String] {
            switch type {
            case .mozReview: ["repositoryUrl"]
            case .phabricator: []
            case .coverage: ["routingKey", "taskNames", "repositories"]
            case .risk: ["reviewers"]
            }
        }

        private mutating func phabricator(_ value: JSONValue) -> PhabricatorSettings? {
            var url = value["url"]?.string ?? ""
            while url.hasSuffix("/") { url.removeLast() }
            guard let token = secrets.secret(value["token"] ?? [:], "phabricator/token", &problems) else { return nil }
            var settings = PhabricatorSettings(url: url, token: token)
            settings.interval = duration(value["interval"], "phabricator/interval", .seconds(60), .seconds(86_400))
            settings.visibility.tries = value["tries"]?.int ?? settings.visibility.tries
            settings.visibility.pause = duration(value["pause"], "phabricator/pause", .seconds(10), .seconds(86_400))
            for (place, secret) in (value["webhook"]?["secrets"]?.array ?? []).enumerated() {
                let name = "phabricator/webhook/secrets/\(place)"
                guard let secret = secrets.secret(secret, name, &problems) else { continue }
                settings.webhookSecrets.append(secret)
            }
            return settings
        }

        private mutating func duration(
            _ value: JSONValue?,
            _ place: String,
            _ fallback: Duration,
            _ limit: Duration
        ) -> Duration {
            guard let text = value?.string else { return fallback }
            guard let duration = Duration(settingsText: text), duration >= .milliseconds(100), duration <= limit else {
                problems.append("\(place) must be a length of time up to \(limit.settingsText), for example 30s or 7h")
                return fallback
            }
            return duration
        }
    }
}
