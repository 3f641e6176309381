// SPDX-License-Identifier: MPL-2.0

/// How urgent a task is; larger is claimed earlier.
public enum TaskPriority: Int, Sendable, Hashable, CaseIterable, Comparable {
    case lowest = 1
    case veryLow, low, medium, high, veryHigh, highest

    /// The spelling on the wire.
    public var name: String {
        switch self {
        case .lowest: "lowest"
        case .veryLow: "very-low"
        case .low: "low"
        case .medium: "medium"
        case .high: "high"
        case .veryHigh: "very-high"
        case .highest: "highest"
        }
    }

    /// Finds the priority with this spelling.
    public init?(name: String) {
        guard let found = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = found
    }

    /// The priorities whose scopes allow creating a task of this one: itself and everything above.
    public var sufficient: [TaskPriority] { Self.allCases.filter { $0 >= self } }

    /// Orders by urgency.
    public static func < (first: Self, second: Self) -> Bool { first.rawValue < second.rawValue }
}
