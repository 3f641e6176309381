// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import JSONSchema

/// Which bridges run, as read from the configuration file.
struct BridgesConfiguration: Sendable {
    /// The middle part of the names of exchanges; the broker's user when absent.
    var namespace: String?
    /// How long a delivery is remembered, to recognise a repetition and to be able to send it again.
    var retention = Duration.seconds(7 * 86_400)
    /// Who sends webhooks.
    var sources: [WebhookSource] = []
    /// The clock's settings, if the clock runs.
    var clock: ClockSettings?
    /// The repositories to watch.
    var repositories: [HgRepository] = []
    /// The pause between two looks at a repository.
    var pollInterval = Duration.seconds(30)
}

/// What the clock is told.
struct ClockSettings: Sendable {
    /// How old a missed minute may be and still be announced.
    var catchUp: Duration
}

/// A Mercurial repository with a pushlog.
struct HgRepository: Sendable, Equatable {
    /// Its name in routing keys.
    let name: String
    /// Its address without a slash at the end.
    let url: String
    /// Whether messages hold the descriptions of changesets and not only their hashes.
    let isFull: Bool
}

/// All that is wrong with a configuration.
struct BridgesConfigurationError: Error, Equatable {
    /// One line each.
    let problems: [String]
}

// MARK: - Reading

extension BridgesConfiguration {
    /// Reads a configuration, checks it against the schema and fetches the secrets; reports every problem at once.
    init(_ text: [UInt8], schema: JSONSchema, secrets: SecretSources) throws(BridgesConfigurationError) {
        let value: JSONValue
        do {
            value = try JSONValue(parsing: text)
        } catch {
            throw BridgesConfigurationError(problems: ["line \(error.line): \(error.message)"])
        }
        let violations = schema.validate(value)
        guard violations.isEmpty else {
            throw BridgesConfigurationError(problems: violations.map { Self.described($0, in: value) })
        }
        var reader = Reader(secrets: secrets)
        self = reader.configuration(value)
        guard reader.problems.isEmpty else { throw BridgesConfigurationError(problems: reader.problems) }
    }

    /// A violation with the names it is about: "no additional properties" alone leaves a reader searching.
    private static func described(_ violation: JSONSchemaProblem, in value: JSONValue) -> String {
        let text = violation.described(root: "configuration")
        guard violation.message.contains("additional properties"),
            let names = value.value(at: violation.path)?.object?.keys
        else { return text }
        return "\(text); it has \(names.joined(separator: ", "))"
    }

    /// Walks through a value that satisfies the schema and notes what the schema cannot say.
    private struct Reader {
        let secrets: SecretSources
        var problems: [String] = []

        mutating func configuration(_ value: JSONValue) -> BridgesConfiguration {
            var result = BridgesConfiguration()
            result.namespace = value["namespace"]?.string
            if let webhooks = value["webhooks"] {
                result.retention = duration(webhooks["retention"], "webhooks/retention", result.retention)
                for (name, source) in webhooks["sources"]?.object ?? [:] {
                    if let source = self.source(name, source) { result.sources.append(source) }
                }
                if result.retention < .seconds(86_400), result.sources.contains(where: { $0.recovery != nil }) {
                    problems.append("webhooks/retention must be a day at least, because a source has recover")
                }
            }
            if let clock = value["clock"] {
                result.clock = ClockSettings(
                    catchUp: duration(clock["catchUp"], "clock/catchUp", .seconds(3600), atMost: .seconds(86_400))
                )
            }
            if let hg = value["hg"] {
                result.pollInterval = duration(hg["interval"], "hg/interval", result.pollInterval)
                for repository in hg["repositories"]?.array ?? [] {
                    self.repository(repository, into: &result.repositories)
                }
            }
            return result
        }

        private mutating func source(_ name: String, _ value: JSONValue) -> WebhookSource? {
            let place = "webhooks/sources/\(name)"
            if ["clock", "hg"].contains(name) {
                problems.append("\(place) is the name of another bridge; choose another one")
            }
            let kindName = value["kind"]?.string ?? ""
            if kindName != "hmac" {
                for key in ["signature", "event", "delivery", "routingKey"] where value[key] != nil {
                    problems.append("\(place)/\(key) is for sources of kind hmac only")
                }
            }
            for key in ["acceptSHA1", "recover"] where kindName != "github" && value[key] != nil {
                problems.append("\(place)/\(key) is for sources of kind github only")
            }
            let kind: WebhookSource.Kind? =
                switch kindName {
                case "github": .github(acceptsSHA1: value["acceptSHA1"]?.bool ?? false)
                case "bitbucket": .bitbucket
                case "gitlab": .gitlab
                case "standard": .standard
                default: description(value, place).map { .hmac($0) }
                }
            var keys: [Secret] = []
            for (index, reference) in (value["secrets"]?.array ?? []).enumerated() {
                if let key = secret(reference, "\(place)/secrets/\(index)") { keys.append(key) }
            }
            let recovery = value["recover"].flatMap { self.recovery($0, "\(place)/recover") }
            guard let kind, !keys.isEmpty else { return nil }
            let rate = value["rate"]?["perSecond"]?.double ?? 20
            return WebhookSource(
                name: name,
                kind: kind,
                secrets: keys,
                bodyLimit: value["bodyLimit"]?.int ?? (kindName == "hmac" ? 1 << 20 : 25 << 20),
                rate: rate,
                burst: value["rate"]?["burst"]?.int ?? max(1, Int((rate * 10).rounded(.up))),
                recovery: recovery
            )
        }

        private mutating func recovery(_ value: JSONValue, _ place: String) -> WebhookSource.Recovery? {
            let interval = duration(value["interval"], "\(place)/interval", .seconds(300), atMost: .seconds(86_400))
            guard let token = secret(value["token"] ?? [:], "\(place)/token") else { return nil }
            let hooks = (value["hooks"]?.array ?? []).compactMap(\.string).map { url in
                url.hasSuffix("/") ? String(url.dropLast()) : url
            }
            return WebhookSource.Recovery(hooks: hooks, token: token, interval: interval)
        }

        private mutating func description(_ value: JSONValue, _ place: String) -> WebhookSource.Description? {
            guard let signature = value["signature"], let header = signature["header"]?.string else {
                problems.append("\(place)/signature is missing; it tells how the sender signs")
                return nil
            }
            var identity = WebhookSource.Identity.none
            if let delivery = value["delivery"] {
                identity = delivery["body"]?.bool == true ? .body : .value(selector(delivery))
            }
            return WebhookSource.Description(
                header: header,
                algorithm: .init(rawValue: signature["algorithm"]?.string ?? "sha256") ?? .sha256,
                encoding: .init(rawValue: signature["encoding"]?.string ?? "hex") ?? .hex,
                prefix: signature["prefix"]?.string ?? "",
                event: value["event"].map(selector),
                identity: identity,
                routingKey: value["routingKey"]?.array?.map(selector) ?? []
            )
        }

        private func selector(_ value: JSONValue) -> WebhookSource.Selector {
            if let header = value["header"]?.string { return .header(header) }
            if let pointer = value["pointer"]?.string { return .pointer(pointer) }
            return .literal(value["literal"]?.string ?? "_")
        }

        private mutating func secret(_ reference: JSONValue, _ place: String) -> Secret? {
            secrets.secret(reference, place, &problems)
        }

        private mutating func repository(_ value: JSONValue, into list: inout [HgRepository]) {
            var url = value["url"]?.string ?? ""
            while url.hasSuffix("/") { url.removeLast() }
            let repository = HgRepository(
                name: value["name"]?.string ?? "",
                url: url,
                isFull: value["full"]?.bool ?? false
            )
            if list.contains(where: { $0.name == repository.name }) {
                problems.append("hg/repositories holds the name \(repository.name) twice")
            }
            list.append(repository)
        }

        private mutating func duration(
            _ value: JSONValue?,
            _ place: String,
            _ fallback: Duration,
            atMost limit: Duration = .seconds(366 * 86_400)
        ) -> Duration {
            guard let text = value?.string else { return fallback }
            guard let duration = Duration(settingsText: text), duration <= limit else {
                problems.append("\(place) must be a length of time up to \(limit.settingsText), for example 30s or 7d")
                return fallback
            }
            return duration
        }
    }
}
