// SPDX-License-Identifier: MPL-2.0

package import JSON
import Taskcluster

/// What identifies a hook: its group, and its name within the group.
package struct HookName: Sendable, Hashable, CustomStringConvertible {
    /// The group; it never holds a slash.
    package let group: String
    /// The name within the group; slashes are ordinary characters of it.
    package let hook: String

    package init(group: String, hook: String) {
        self.group = group
        self.hook = hook
    }

    /// Reads the description of a name.
    package init?(text: String) {
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty else { return nil }
        self.init(group: String(parts[0]), hook: String(parts[1]))
    }

    /// Group and hook as scopes, roles and log lines join them.
    package var description: String { "\(group)/\(hook)" }

    /// The role whose scopes the hook's tasks are created with.
    package var role: String { "hook-id:\(self)" }

    /// The two members that identify the hook in messages.
    package var json: JSONValue { ["hookGroupId": JSONValue(group), "hookId": JSONValue(hook)] }
}
