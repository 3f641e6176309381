// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import Synchronization

/// The rules of bindings by version of the definition, read anew only when it changed.
final class BindingRules: Sendable {
    private let known = Mutex<[HookName: (version: Int, rules: [BindingRule])]>([:])
    private static let limit = 2000

    /// The rules of a version of a hook's definition, if they are remembered.
    func known(_ name: HookName, version: Int) -> [BindingRule]? {
        known.withLock { $0[name] }.flatMap { $0.version == version ? $0.rules : nil }
    }

    /// The rules of a hook whose definition has a version; none, which lets everything pass, without a version.
    func rules(of name: HookName, version: Int?, on connection: PostgresConnection) async throws -> [BindingRule] {
        guard let version else { return [] }
        if let rules = known(name, version: version) { return rules }
        let row = try await connection.query(
            """
            select bindings, definition_version from hooks.hooks
            where hook_group_id = \(name.group) and hook_id = \(name.hook)
            """
        ).first
        guard let row else { return [] }
        let bindings = try row.json("bindings").array?.compactMap(HookBinding.init(json:)) ?? []
        let rules = bindings.allSatisfy { $0.filter == nil } ? [] : try bindings.map(BindingRule.init)
        let read = try row.int("definition_version")
        known.withLock { known in
            if known.count >= Self.limit { known.removeAll() }
            known[name] = (read, rules)
        }
        return rules
    }
}
