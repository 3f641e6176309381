// SPDX-License-Identifier: MPL-2.0

public import JSON

/// What is known of a product: the keys are those of the original's `products.yml`, and a few of our own.
struct Product: Sendable {
    /// A signature that a phase needs.
    struct Slot: Sendable, Hashable {
        let name: String
        let description: String
        /// The group of people who may give it.
        let permissions: String
    }

    let name: String
    let phases: [String]
    let isLegacy: Bool
    let canBeDisabled: Bool
    let groups: Set<String>
    let repository: String
    let trustDomain: String?
    let signoffs: [String: [Slot]]
    /// By project; the empty name stands for all others.
    let phaseSkipping: [String: Bool]
    /// What is demanded of those who sign.
    let rules: PhaseRules
    let notify: JSONValue
    /// The template of pipelines for releases that come by the first version's form.
    let template: String?
    /// The ways in which its branches are merged, by name.
    let merges: [String: Merge]
    /// How releases that come by the first version's form are begun here; nil if something else does that.
    let runner: RunnerRules?

    /// A way in which branches are merged.
    struct Merge: Sendable {
        let repository: String
        let project: String
        let prettyName: String
    }

    /// Whether phases may be left out in a project.
    func allowsPhaseSkipping(_ project: String) -> Bool { phaseSkipping[project] ?? phaseSkipping[""] ?? false }
}

/// All products.
public struct ProductCatalogue: Sendable {
    let products: [String: Product]
    /// The groups of the directory behind a group that signoffs name.
    let groups: [String: Set<String>]
    /// The project of the manifests of extensions; nil if none are released here.
    let extensions: String?

    /// What is wrong with a catalogue.
    public struct Problem: Error, CustomStringConvertible {
        /// What, and where.
        public let description: String
    }

    /// No products.
    public static let empty = ProductCatalogue(products: [:], groups: [:], extensions: nil)

    private init(products: [String: Product], groups: [String: Set<String>], extensions: String?) {
        self.products = products
        self.groups = groups
        self.extensions = extensions
    }

    /// Reads a catalogue: products by name, or `products` and the `groups` of people behind their signoffs; only where lax
    /// products are allowed, which is for tests, may one let a person fill all slots.
    public init(_ json: JSONValue, allowsLax: Bool) throws(Problem) {
        guard let root = json.object else { throw Problem(description: "the products have to be an object") }
        let list = root["products"]?.object ?? root
        var products: [String: Product] = [:]
        for (name, value) in list where name != "groups" {
            guard let object = value.object else { throw Problem(description: "\(name) has to be an object") }
            products[name] = try Self.product(name, object, allowsLax: allowsLax)
        }
        // Extensions of a kind are like a product, whose phases the source names.
        let kinds = root["products"] == nil ? nil : root["xpi"]?["types"]?.object
        for (kind, value) in kinds ?? [:] {
            let name = Extension.product(kind)
            guard let object = value.object else { throw Problem(description: "\(name) has to be an object") }
            products[name] = try Self.product(name, object, allowsLax: allowsLax, namesPhases: false)
        }
        extensions = kinds == nil ? nil : root["xpi"]?["project"]?.string ?? "xpi-manifest"
        self.products = products
        var groups: [String: Set<String>] = [:]
        for (name, value) in root["products"] == nil ? [:] : root["groups"]?.object ?? [:] {
            groups[name] = Set(value.array?.compactMap(\.string) ?? [])
        }
        self.groups = groups
    }

    private static func product(
        _ name: String,
        _ json: JSONObject,
        allowsLax: Bool,
        namesPhases: Bool = true
    ) throws(Problem) -> Product {
        func words(_ key: String) throws(Problem) -> [String] {
            guard let value = json[key] else { return [] }
            guard let list = value.array, list.allSatisfy({ $0.string != nil }) else {
                throw Problem(description: "\(name).\(key) has to be a list of words")
            }
            return list.compactMap(\.string)
        }
        let phases = try words("phases")
        guard Set(phases).count == phases.count else { throw Problem(description: "\(name).phases names one twice") }
        var slots: [String: [Product.Slot]] = [:]
        for (phase, value) in json["signoffs"]?.object ?? [:] {
            guard phases.contains(phase) || !namesPhases, let list = value.array else {
                throw Problem(description: "\(name).signoffs.\(phase) has to be a list for one of its phases")
            }
            for slot in list {
                guard let title = slot["name"]?.string, let group = slot["permissions"]?.string else {
                    throw Problem(description: "\(name).signoffs.\(phase) needs name and permissions")
                }
                let text = slot["description"]?.string ?? ""
                slots[phase, default: []].append(.init(name: title, description: text, permissions: group))
            }
        }
        var skipping: [String: Bool] = [:]
        if let value = json["allow-phase-skipping"] {
            if let all = value.bool { skipping[""] = all }
            for (project, value) in value.object ?? [:] {
                skipping[project == "default" ? "" : project] = value.bool ?? false
            }
        }
        let rules = try rules(name, json)
        guard !rules.isLax || allowsLax else { throw Problem(description: "\(name).lax is not for production") }
        return Product(
            name: name,
            phases: phases,
            isLegacy: json["legacy"]?.bool ?? false,
            canBeDisabled: json["can-be-disabled"]?.bool ?? false,
            groups: Set(try words("authorized-ldap-groups")),
            repository: json["repo-url"]?.string ?? "",
            trustDomain: json["trust-domain"]?.string,
            signoffs: slots,
            phaseSkipping: skipping,
            rules: rules,
            notify: json["notify"] ?? [],
            template: json["pipeline-template"]?.string,
            merges: try merges(name, json["merge-behaviors"]?.object ?? [:]),
            runner: try json["release-runner"].map { json throws(Problem) in try runner(name, json) }
        )
    }

    /// What a product demands of those who sign: what is misspelt here must not let anybody through.
    private static func rules(_ product: String, _ json: JSONObject) throws(Problem) -> PhaseRules {
        func flag(_ key: String) throws(Problem) -> Bool {
            guard let value = json[key] else { return false }
            guard let flag = value.bool else { throw Problem(description: "\(product).\(key) has to be true or false") }
            return flag
        }
        func seconds(_ key: String) throws(Problem) -> Int? {
            guard let value = json[key] else { return nil }
            guard let number = value.int, (0...31_536_000).contains(number) else {
                throw Problem(description: "\(product).\(key) has to be a number of seconds")
            }
            return number
        }
        let forbidden = json["forbid-signers"] ?? []
        guard let names = forbidden.array, names.allSatisfy({ $0.string != nil }) else {
            throw Problem(description: "\(product).forbid-signers has to be a list of people")
        }
        return PhaseRules(
            isLax: try flag("lax"),
            forbidsRequester: try flag("forbid-requester"),
            forbidden: Set(names.compactMap { $0.string?.lowercased() }),
            minimumDelay: try seconds("min-delay-s") ?? 0,
            longestLogin: try seconds("max-auth-age-s")
        )
    }

    private static func runner(_ product: String, _ json: JSONValue) throws(Problem) -> RunnerRules {
        guard let task = json["task"], task.object != nil else {
            throw Problem(description: "\(product).release-runner needs a task")
        }
        var checks: [RunnerRules.Check] = [.longRevision, .locales, .partials, .branches]
        if let words = json["checks"]?.array {
            checks = []
            for word in words {
                guard let check = word.string.flatMap(RunnerRules.Check.init(rawValue:)) else {
                    let known = RunnerRules.Check.allCases.map(\.rawValue).joined(separator: ", ")
                    throw Problem(description: "\(product).release-runner.checks has to be of \(known)")
                }
                checks.append(check)
            }
        }
        let branches = json["allowed-branches"]?.array?.compactMap(\.string) ?? []
        return RunnerRules(task: task, checks: checks, branches: branches)
    }

    private static func merges(_ product: String, _ json: JSONObject) throws(Problem) -> [String: Product.Merge] {
        var merges: [String: Product.Merge] = [:]
        for (behavior, value) in json {
            guard let repository = value["repo"]?.string, let project = value["project"]?.string else {
                throw Problem(description: "\(product).merge-behaviors.\(behavior) needs repo and project")
            }
            let name = value["pretty-name"]?.string ?? behavior
            merges[behavior] = Product.Merge(repository: repository, project: project, prettyName: name)
        }
        return merges
    }

    /// The product of a name; for a release candidate the variant that is made for those, if there is one.
    func product(_ name: String, version: ReleaseVersion? = nil) -> Product? {
        if let version, version.isFirstOfItsKind, let candidate = products["\(name)_rc"] { return candidate }
        return products[name]
    }

    /// The groups of the directory whose people may sign for a group.
    func members(of group: String) -> Set<String> { groups[group] ?? [group] }
}
