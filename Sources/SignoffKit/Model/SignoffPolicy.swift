// SPDX-License-Identifier: MPL-2.0

public import JSON
public import Schedules
public import StepKit

/// Whose approval a step needs.
///
/// One of several conditions has to be met; a condition names groups and persons and how many of each.
public struct SignoffPolicy: Sendable, Hashable {
    /// How many people of a group, or that one person, have to sign.
    public struct Slot: Sendable, Hashable {
        /// The group, or the address of a person.
        public let key: String
        /// How many; one for a person.
        public let count: Int

        /// Whether the key is the address of one person.
        public var isPerson: Bool { SignoffPolicy.isPerson(key) }
    }

    /// What happens to a step whose time is over.
    public enum Expiry: String, Sendable, Hashable {
        case failure
        case cancel
    }

    /// The change at Balrog whose approval counts instead of signatures here; nil for signatures here.
    public var balrog: BalrogChange?
    /// The conditions, of which one has to be met; none where Balrog decides.
    public var conditions: [[Slot]]
    /// Whether signers need a second factor; nil leaves it to the service.
    public var requiresSecondFactor: Bool?
    /// Addresses and subjects that may not sign.
    public var forbidden: Set<String> = []
    /// Whether whoever asked for the step may not sign it.
    public var forbidsRequester = false
    /// How long ago a signer may have logged in, in seconds; nil leaves it to the service.
    public var longestLogin: Int?
    /// When the step is given up.
    public var expires: Timestamp?
    /// How it is given up.
    public var onExpiry = Expiry.failure
    /// Whether one signer may end the step.
    public var allowsRejection = false
    /// How long after its creation a step may be signed at the earliest, in seconds.
    public var minimumDelay = 0
    /// Whether signers are looked up again before a step is completed.
    public var revalidates = false
    /// Whether signers have to name the digest of what they approve.
    public var requiresDigest = false

    /// Whether a key is the address of one person.
    static func isPerson(_ key: String) -> Bool { key.contains("@") }

    /// Whether a group or a person occurs in any condition.
    public func mentions(_ key: String) -> Bool {
        conditions.contains { $0.contains { $0.key == key } }
    }
}

extension SignoffPolicy {
    private static let members: Set<String> = [
        "method", "definition", "require_mfa", "forbid", "forbid_requester", "max_auth_age_s", "expires", "on_expire",
        "allow_reject", "min_delay_s", "revalidate", "require_digest",
    ]

    /// Reads a policy; everything that is wrong with it is told at once.
    public init(_ json: JSONValue?) throws(StepProblem) {
        guard let object = json?.object else {
            throw StepProblem.invalid("policy has to be an object", code: "invalid_policy")
        }
        var reader = PolicyReader(object)
        reader.allowOnly(Self.members)
        switch object["method"]?.string?.lowercased() {
        case "local": conditions = reader.conditions(object["definition"])
        case "balrog":
            conditions = []
            balrog = reader.balrog(object["definition"])
            for key in object.keys where !["method", "definition", "expires", "on_expire"].contains(key) {
                reader.fail("\(key) means nothing where Balrog decides")
            }
        default:
            reader.fail("method has to be local or balrog")
            conditions = reader.conditions(object["definition"])
        }
        requiresSecondFactor = reader.optionalBool("require_mfa")
        forbidden = Set(reader.strings("forbid").map { $0.lowercased() })
        forbidsRequester = reader.optionalBool("forbid_requester") ?? false
        longestLogin = reader.optionalInt("max_auth_age_s", in: 1...31_536_000)
        expires = reader.timestamp("expires")
        onExpiry = reader.word("on_expire", Expiry.init(rawValue:)) ?? .failure
        allowsRejection = reader.optionalBool("allow_reject") ?? false
        minimumDelay = reader.optionalInt("min_delay_s", in: 0...31_536_000) ?? 0
        revalidates =
            reader.word("revalidate") { ["none", "completion"].contains($0) ? $0 == "completion" : nil } ?? false
        requiresDigest = reader.optionalBool("require_digest") ?? false
        guard reader.problems.isEmpty else {
            throw StepProblem(
                400,
                "invalid_policy",
                "The policy is not valid: " + reader.problems.joined(separator: "; "),
                members: ["errors": JSONValue(reader.problems)]
            )
        }
    }

    /// The policy in its one stored form, without what is left at its default.
    public var json: JSONValue {
        if let balrog {
            var object: JSONObject = ["method": "balrog", "definition": balrog.json]
            if let expires { object["expires"] = .string(expires.iso8601) }
            if onExpiry != .failure { object["on_expire"] = .string(onExpiry.rawValue) }
            return .object(object)
        }
        var object: JSONObject = [
            "method": "local",
            "definition": .array(
                conditions.map { condition in
                    .object(JSONObject(condition.map { (key: $0.key, value: JSONValue($0.count)) }))
                }
            ),
        ]
        if let requiresSecondFactor { object["require_mfa"] = JSONValue(requiresSecondFactor) }
        if !forbidden.isEmpty { object["forbid"] = JSONValue(forbidden.sorted()) }
        if forbidsRequester { object["forbid_requester"] = true }
        if let longestLogin { object["max_auth_age_s"] = JSONValue(longestLogin) }
        if let expires { object["expires"] = .string(expires.iso8601) }
        if onExpiry != .failure { object["on_expire"] = .string(onExpiry.rawValue) }
        if allowsRejection { object["allow_reject"] = true }
        if minimumDelay > 0 { object["min_delay_s"] = JSONValue(minimumDelay) }
        if revalidates { object["revalidate"] = "completion" }
        if requiresDigest { object["require_digest"] = true }
        return .object(object)
    }
}

/// Reads the members of a policy and collects what is wrong.
private struct PolicyReader {
    private let object: JSONObject
    private(set) var problems: [String] = []

    init(_ object: JSONObject) {
        self.object = object
    }

    mutating func fail(_ problem: String) {
        problems.append(problem)
    }

    mutating func allowOnly(_ names: Set<String>) {
        for key in object.keys where !names.contains(key) { fail("\(key) is not known") }
    }

    /// The change that Balrog is asked about.
    mutating func balrog(_ json: JSONValue?) -> BalrogChange? {
        guard let members = json?.object, Set(members.keys) == ["object", "sc_id"] else {
            fail("definition has to have object and sc_id, and nothing else")
            return nil
        }
        guard let object = members["object"]?.string, BalrogChange.objects.contains(object) else {
            fail("definition.object has to be one of \(BalrogChange.objects.sorted().joined(separator: ", "))")
            return nil
        }
        guard let id = members["sc_id"]?.int, id > 0 else {
            fail("definition.sc_id has to be the number of a scheduled change")
            return nil
        }
        return BalrogChange(object: object, id: id)
    }

    /// One condition, or a list of them.
    mutating func conditions(_ json: JSONValue?) -> [[SignoffPolicy.Slot]] {
        let list: [JSONValue]
        switch json {
        case .object: list = json.map { [$0] } ?? []
        case .array(let elements): list = elements
        default:
            fail("definition has to be a list of conditions")
            return []
        }
        if list.isEmpty { fail("definition is empty") }
        if list.count > 20 { fail("definition has more than 20 conditions") }
        return list.prefix(20).enumerated().map { condition($1, at: $0) }
    }

    private mutating func condition(_ json: JSONValue, at index: Int) -> [SignoffPolicy.Slot] {
        let place = "definition[\(index)]"
        guard let members = json.object else {
            fail("\(place) has to be an object")
            return []
        }
        if members.isEmpty { fail("\(place) is empty, which anybody would meet") }
        if members.count > 20 { fail("\(place) has more than 20 keys") }
        var slots: [String: Int] = [:]
        var order: [String] = []
        for (name, value) in members {
            let key = SignoffPolicy.isPerson(name) ? name.lowercased() : name
            if key.isEmpty || key.utf8.count > 80 {
                fail("\(place) has a key that is empty or longer than 80 characters")
            }
            guard let count = value.int, (1...20).contains(count) else {
                fail("\(place).\(key) has to be 1 to 20")
                continue
            }
            if SignoffPolicy.isPerson(key), count != 1 { fail("\(place).\(key) names one person and has to be 1") }
            if slots.updateValue(count, forKey: key) == nil {
                order.append(key)
            } else {
                fail("\(place) has \(key) twice")
            }
        }
        return order.map { SignoffPolicy.Slot(key: $0, count: slots[$0, default: 1]) }
    }

    mutating func optionalBool(_ name: String) -> Bool? {
        guard let value = object[name] else { return nil }
        if value.bool == nil { fail("\(name) has to be true or false") }
        return value.bool
    }

    mutating func optionalInt(_ name: String, in range: ClosedRange<Int>) -> Int? {
        guard let value = object[name] else { return nil }
        guard let number = value.int, range.contains(number) else {
            fail("\(name) has to be \(range.lowerBound) to \(range.upperBound)")
            return nil
        }
        return number
    }

    mutating func strings(_ name: String) -> [String] {
        guard let value = object[name] else { return [] }
        guard let list = value.array, list.allSatisfy({ $0.string != nil }) else {
            fail("\(name) has to be a list of texts")
            return []
        }
        return list.compactMap(\.string)
    }

    mutating func timestamp(_ name: String) -> Timestamp? {
        guard let value = object[name] else { return nil }
        guard let moment = value.string.flatMap({ Timestamp($0) }) else {
            fail("\(name) has to be a date and time")
            return nil
        }
        return moment
    }

    mutating func word<Value>(_ name: String, _ read: (String) -> Value?) -> Value? {
        guard let value = object[name] else { return nil }
        guard let result = value.string.flatMap(read) else {
            fail("\(name) has a value that is not known")
            return nil
        }
        return result
    }
}
