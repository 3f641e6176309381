// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `ssh_host_keys`: shows with which keys a machine answers SSH; accepting one is a person's business.
package struct HostKeyScan: RollerAction {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "ssh_host_keys",
        title: "Host keys",
        summary: "Asks the machine for its SSH host keys, and compares them with those that were accepted.",
        isDestructive: false,
        isReadOnly: true,
        controls: [.ssh]
    )

    /// An action without settings of its own.
    package init() {}

    /// The one program.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        [try Self.words(target).joined(separator: " ")]
    }

    /// Scans.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let control = try context.target.control(.ssh)
        let words = try Self.words(context.target)
        let accepted = SSHClient.pinnedKeys(control, context.target)
        return try await context.attempt("ssh_host_keys", control, changes: false, arguments: words) {
            () async throws(ActionError) -> (ActionResult, AttemptEnd) in
            let output = try await context.tools.run(ToolInvocation(words, limit: .seconds(20)))
            let keys = Self.keys(output.text)
            guard !keys.isEmpty else { throw ActionError(.unreachable, "the machine shows no host key") }
            let views = keys.map { key -> JSONValue in
                [
                    "type": JSONValue(key.type), "key": JSONValue(key.line), "fingerprint": JSONValue(key.fingerprint),
                    "accepted": JSONValue(accepted.contains(key)),
                ]
            }
            let known = keys.count { accepted.contains($0) }
            let summary = "\(keys.count) keys, \(known) of them accepted"
            let details: JSONObject = ["machine": JSONValue(context.target.name), "keys": .array(views)]
            return (ActionResult(summary, details), AttemptEnd(.ok, exitCode: output.code, summary: summary))
        }
    }

    private static func words(_ target: ActionTarget) throws(ActionError) -> [String] {
        let control = try target.control(.ssh)
        var host = try target.host()
        if let address = control.address { host = try HostName.validated(address) }
        return ["ssh-keyscan", "-T", "5", "-p", "\(SSHClient.port(control))", "--", host]
    }

    /// The keys in what `ssh-keyscan` prints; what begins with `#` is talk.
    static func keys(_ text: String) -> [HostKey] {
        var keys: [HostKey] = []
        for line in text.split(separator: "\n") where !line.hasPrefix("#") {
            let words = line.split(separator: " ", maxSplits: 1)
            guard words.count == 2, let key = HostKey(String(words[1])), !keys.contains(key) else { continue }
            keys.append(key)
        }
        return keys.sorted { $0.type < $1.type }
    }
}
