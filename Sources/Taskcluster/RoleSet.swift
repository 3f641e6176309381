// SPDX-License-Identifier: MPL-2.0

/// All roles of a deployment, indexed for expansion.
///
/// A scope `assume:<id>` brings in the scopes of the role `id` and of every prefix role covering it, again and again until
/// nothing new appears. A held scope ending in `*` brings in every role it reaches.
public struct RoleSet: Sendable {
    private let roles: [Role]
    private let exact: [String: [String]]
    /// Exact ids in order, to find those with a given prefix.
    private let exactIDs: [String]
    /// Scopes of prefix roles by their prefix, the star removed.
    private let prefixed: [String: [String]]
    private let prefixLengths: [Int]

    /// Indexes roles; of roles with the same id the last one counts.
    public init(_ roles: [Role]) {
        var exact: [String: [String]] = [:]
        var prefixed: [String: [String]] = [:]
        for role in roles {
            if role.id.hasSuffix("*") {
                prefixed[String(role.id.dropLast())] = role.scopes
            } else {
                exact[role.id] = role.scopes
            }
        }
        self.roles = roles
        self.exact = exact
        self.prefixed = prefixed
        exactIDs = exact.keys.sorted()
        prefixLengths = Set(prefixed.keys.map(\.utf8.count)).sorted()
    }

    /// The scopes together with everything their roles grant, normalised.
    public func expand(_ scopes: [String]) -> [String] {
        var seen = Set(scopes)
        var frontier = scopes
        // Roles without cycles cannot chain deeper than there are roles; with cycles this is what ends the growth.
        for _ in 0...roles.count where !frontier.isEmpty && seen.count < Self.limit {
            var next: [String] = []
            for scope in frontier {
                reach(scope) { granted in
                    if seen.insert(granted).inserted { next.append(granted) }
                }
            }
            frontier = next
        }
        return Scope.normalized(seen)
    }

    /// A dependency cycle among the roles, as ids of which the first comes again at the end; nil when there is none.
    ///
    /// Parameters count as if they were `*`, so a role granting `assume:team:<..>` depends on every role about teams.
    public func cycle() -> [String]? {
        let ids = Set(roles.map(\.id)).sorted()
        var dependencies: [String: [String]] = [:]
        for id in ids { dependencies[id] = targets(of: id) }
        var state: [String: Bool] = [:]  // false: on the path, true: done
        for start in ids where state[start] == nil {
            var path: [(id: String, next: Int)] = [(start, 0)]
            state[start] = false
            while let top = path.last {
                let targets = dependencies[top.id] ?? []
                guard top.next < targets.count else {
                    state[top.id] = true
                    path.removeLast()
                    continue
                }
                path[path.count - 1].next += 1
                let target = targets[top.next]
                switch state[target] {
                case true?: break
                case false?:
                    let cycle = path.map(\.id).drop { $0 != target }
                    return Array(cycle) + [target]
                case nil:
                    state[target] = false
                    path.append((target, 0))
                }
            }
        }
        return nil
    }

    /// What is wrong with a role by itself; nil when nothing is.
    public static func validate(_ role: Role) -> String? {
        if !Patterns.roleID.matches(role.id) { return "roleId must consist of printable ASCII characters" }
        if role.id.hasSuffix("**") { return "roleId must not end with **" }
        for scope in role.scopes {
            if !Scope.isValid(scope) { return "scope '\(scope)' must consist of printable ASCII characters" }
            if scope.hasSuffix("**") { return "scope '\(scope)' must not end with **" }
            guard role.id.hasSuffix("*") else { continue }
            let parts = parts(of: scope)
            if parts.count > 2 { return "scope '\(scope)' must not have more than one <..> parameter" }
            if parts.count == 2, parts[0].hasSuffix("*"), parts[1].isEmpty {
                return "scope '\(scope)' must not have * right before its <..> parameter"
            }
        }
        return nil
    }

    private static let limit = 100_000
    private static let assume = Array("assume:".utf8)

    /// Calls `body` with each scope that holding `scope` grants directly.
    private func reach(_ scope: String, _ body: (String) -> Void) {
        let bytes = scope.utf8
        guard bytes.last == Scope.star else {
            guard bytes.starts(with: Self.assume) else { return }
            reachExactly(String(scope.dropFirst(Self.assume.count)), body)
            return
        }
        let held = bytes.dropLast()
        if held.starts(with: Self.assume) {
            reachAll(String(scope.dropFirst(Self.assume.count).dropLast()), body)
        } else if Self.assume.starts(with: held) {
            reachAll("", body)
        }
    }

    private func reachExactly(_ id: String, _ body: (String) -> Void) {
        exact[id]?.forEach(body)
        let bytes = id.utf8
        for length in prefixLengths where length <= bytes.count {
            let split = bytes.index(bytes.startIndex, offsetBy: length)
            guard let scopes = prefixed[String(id[..<split])] else { continue }
            Self.fill(scopes, with: String(id[split...]), body)
        }
    }

    /// Everything whose id can begin with `prefix`: a star follows it in the held scope.
    private func reachAll(_ prefix: String, _ body: (String) -> Void) {
        var index = exactIDs.lowerBound(of: prefix)
        while index < exactIDs.count, exactIDs[index].utf8.starts(with: prefix.utf8) {
            exact[exactIDs[index]]?.forEach(body)
            index += 1
        }
        for (role, scopes) in prefixed {
            if prefix.utf8.starts(with: role.utf8) {
                Self.fill(scopes, with: String(prefix.dropFirst(role.count)) + "*", body)
            } else if role.utf8.starts(with: prefix.utf8) {
                Self.fill(scopes, with: "*", body)
            }
        }
    }

    /// Puts the matched text into the scopes of a prefix role; a text ending in a star cuts off what follows it.
    private static func fill(_ scopes: [String], with match: String, _ body: (String) -> Void) {
        for scope in scopes {
            let parts = parts(of: scope)
            guard parts.count > 1 else {
                body(scope)
                continue
            }
            body(parts[0] + match + (match.hasSuffix("*") ? "" : parts[1...].joined(separator: parameter)))
        }
    }

    private static let parameter = "<..>"

    /// The scope cut at its parameters.
    private static func parts(of scope: String) -> [String] {
        let marker = Array(parameter.utf8)
        var parts: [String] = []
        var current: [UInt8] = []
        var rest = Array(scope.utf8)[...]
        while let character = rest.first {
            if rest.starts(with: marker) {
                parts.append(String(decoding: current, as: UTF8.self))
                current = []
                rest = rest.dropFirst(marker.count)
            } else {
                current.append(character)
                rest = rest.dropFirst()
            }
        }
        parts.append(String(decoding: current, as: UTF8.self))
        return parts
    }

    /// The ids of the roles that a role's scopes reach.
    private func targets(of id: String) -> [String] {
        let isPrefix = id.hasSuffix("*")
        let scopes = (isPrefix ? prefixed[String(id.dropLast())] : exact[id]) ?? []
        var result: Set<String> = []
        for scope in scopes {
            let parts = isPrefix ? Self.parts(of: scope) : [scope]
            let held = parts.count > 1 ? parts[0] + "*" : scope
            for role in roles where Self.reaches(held, role.id) { result.insert(role.id) }
        }
        return result.sorted()
    }

    private static func reaches(_ held: String, _ role: String) -> Bool {
        let target = "assume:" + role
        if Scope.satisfies(held, target) { return true }
        return role.hasSuffix("*") && Scope.satisfies(target, held)
    }
}

extension [String] {
    /// The index of the first element that is not less than `text`; the array must be sorted.
    fileprivate func lowerBound(of text: String) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if self[middle] < text { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
