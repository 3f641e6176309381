// SPDX-License-Identifier: MPL-2.0

public import JSON
import Notices

/// Who is told, without being named by a pipeline, that a group's approval is needed.
///
/// `{"releng": "release@example.com", "relman": ["a@example.com", {"type": "matrix", "target": "!room:example.com"}]}`
public struct GroupLists: Sendable, Hashable {
    /// Where a message goes.
    struct Target: Sendable, Hashable {
        let channel: NotifyRule.Channel
        let address: String
    }

    /// What is wrong with lists.
    public struct Problem: Error, Sendable, CustomStringConvertible {
        /// What to do about it.
        public let description: String
    }

    /// Nobody's.
    public static let none = GroupLists(targets: [:], interval: nil)

    private static let limit = 20
    private let targets: [String: [Target]]
    /// The seconds between reminders; nil for none.
    let interval: Int?

    private init(targets: [String: [Target]], interval: Int?) {
        self.targets = targets
        self.interval = interval
    }

    /// Reads lists; reminders come each `interval` seconds, if at all.
    public init(_ json: JSONValue, reminders interval: Int?) throws(Problem) {
        guard let object = json.object else { throw Problem(description: "has to be a JSON object of groups") }
        var targets: [String: [Target]] = [:]
        for (group, value) in object {
            var list: [Target] = []
            for entry in value.array ?? [value] {
                guard let target = Self.target(entry) else {
                    throw Problem(
                        description: "names for \(group) what is neither an address nor {\"type\", \"target\"} of "
                            + "email, matrix or slack"
                    )
                }
                list.append(target)
            }
            guard !list.isEmpty, list.count <= Self.limit else {
                throw Problem(description: "has to name 1 to \(Self.limit) recipients for \(group)")
            }
            targets[group] = list
        }
        self.init(targets: targets, interval: interval)
    }

    private static func target(_ json: JSONValue) -> Target? {
        let channel = json.string == nil ? json["type"]?.string.flatMap(NotifyRule.Channel.init) : .email
        guard let channel, let address = json.string ?? json["target"]?.string,
            [.email, .matrix, .slack].contains(channel), (1...2000).contains(address.utf8.count),
            address.utf8.allSatisfy({ $0 > 32 && $0 != 127 }),
            channel != .email || NotifyRule.isAddress(address)
        else { return nil }
        return Target(channel: channel, address: address)
    }

    /// Whom to tell of what is missing: each once, however many of the groups are theirs.
    func targets(missing: [JSONValue]) -> [Target] {
        guard !targets.isEmpty else { return [] }
        var seen: Set<Target> = []
        return missing.flatMap { $0.object?.keys ?? [] }.flatMap { targets[$0] ?? [] }.filter {
            seen.insert($0).inserted
        }
    }
}
