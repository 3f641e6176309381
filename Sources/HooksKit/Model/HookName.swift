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

    /// Group and hook as scopes, roles and log lines join them.
    package var description: String { "\(group)/\(hook)" }

    /// The role whose scopes the hook's tasks are created with.
    package var role: String { "hook-id:\(self)" }

    /// The two members that identify the hook in messages.
    package var json: JSONValue { ["hookGroupId": JSONValue(group), "hookId": JSONValue(hook)] }
}
