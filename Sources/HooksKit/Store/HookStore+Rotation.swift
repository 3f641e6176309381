// SPDX-License-Identifier: MPL-2.0

import Logging
import Metrics
import Postgres

extension HookStore {
    /// Encrypts with the newest key whatever still needs an older one, and answers how many hooks that concerned.
    ///
    /// It may run at any time and in several processes: a hook is locked while its secrets are rewritten, and a secret
    /// that somebody else has replaced meanwhile is not touched.
    @discardableResult
    package func rotateSecrets(batch: Int = 200) async throws -> Int {
        var last = HookName(group: "", hook: "")
        var total = 0
        while true {
            try Task.checkCancellation()
            let after = last
            let names = try await pool.transaction { connection in
                let rows = try await connection.query(
                    """
                    select hook_group_id, hook_id, encrypted_trigger_token as token, encrypted_next_task_id as task_id
                    from hooks.hooks
                    where (hook_group_id, hook_id) > (\(after.group), \(after.hook))
                        and (split_part(encrypted_trigger_token, '|', 1) <> \(box.newestKey)
                            or split_part(encrypted_next_task_id, '|', 1) <> \(box.newestKey))
                    order by hook_group_id, hook_id limit \(batch) for no key update
                    """
                )
                var names: [HookName] = []
                var statements: [SQL] = []
                for row in rows {
                    let name = HookName(group: try row.string("hook_group_id"), hook: try row.string("hook_id"))
                    let token = try box.seal(box.open(row.string("token"), for: name), for: name)
                    let taskID = try box.seal(box.open(row.string("task_id"), for: name), for: name)
                    names.append(name)
                    statements.append(
                        """
                        update hooks.hooks set encrypted_trigger_token = \(token), encrypted_next_task_id = \(taskID)
                        where hook_group_id = \(name.group) and hook_id = \(name.hook)
                        """
                    )
                }
                if !statements.isEmpty { _ = try await connection.pipeline(statements) }
                return names
            }
            guard let end = names.last else { break }
            total += names.count
            last = end
        }
        guard total > 0 else { return 0 }
        Counter(label: "hooks_secrets_rotated_total").increment(by: Int64(total))
        Logger.current.notice("secrets use the newest key now", metadata: ["hooks": "\(total)"])
        return total
    }
}
