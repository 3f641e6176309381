// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `ssh_reboot`: asks the operating system to restart.
package struct SSHReboot: RebootMethod {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "ssh_reboot",
        title: "Reboot by SSH",
        summary: "Logs in and asks the operating system to restart.",
        isDestructive: true,
        controls: [.ssh]
    )

    /// The operating system shuts down by itself.
    package var isHard: Bool { false }

    /// An action without settings of its own.
    package init() {}

    /// Fifteen seconds for each command.
    package func budget(_ target: ActionTarget) -> Duration { .seconds(15) * Self.commands(target).count }

    /// The commands, in the order in which they are tried.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        let control = try target.control(.ssh)
        var lines: [String] = []
        for command in Self.commands(target) { lines.append(try SSHClient.plan(command, control, target)) }
        return lines
    }

    /// Tries one command after the other until one is accepted.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let control = try context.target.control(.ssh)
        let client = SSHClient(context: context, control: control)
        var last = ActionError(.other, "no command is configured")
        for command in Self.commands(context.target) {
            do throws(ActionError) {
                return try await attempt(command, client, context)
            } catch  where error.kind == .other {
                last = error
            }
        }
        throw last
    }

    private func attempt(
        _ command: String,
        _ client: SSHClient,
        _ context: ActionContext
    ) async throws(ActionError) -> ActionResult {
        let shown = ["ssh", "-l", try SSHClient.login(client.control), "--", try context.target.host(), command]
        return try await context.attempt("ssh_reboot", client.control, changes: true, arguments: shown) {
            () async throws(ActionError) -> (ActionResult, AttemptEnd) in
            let (ending, output) = try await client.run(command)
            switch ending {
            case .exited(0):
                let end = AttemptEnd(.ok, exitCode: 0, summary: "the machine accepted \(command)", output: output.text)
                return (ActionResult("the machine accepted \(command)", isVerified: false), end)
            case .broken:
                throw ActionError(
                    .unverified,
                    "the session ended before the command's status came",
                    outcome: .unverified
                )
            case .hostKeyMismatch:
                await context.conduct.alert(
                    "host-key",
                    "the SSH host key of \(context.target.name) is not the one that was accepted"
                )
                throw ActionError(.refused, "the host key is not the accepted one")
            case .denied:
                throw ActionError(.credentials, "the machine does not accept our key")
            case .timeout:
                throw ActionError(.timeout, "the machine did not answer in time")
            case .unreachable:
                throw ActionError(.unreachable, "there is no SSH connection to the machine")
            case .exited(let code):
                let said = output.text.split(separator: "\n").last.map { ": \($0.prefix(120))" } ?? ""
                throw ActionError(.other, "\(command) failed with code \(code)\(said)")
            }
        }
    }

    static func commands(_ target: ActionTarget) -> [String] {
        let own = target.properties["ssh.reboot_commands"]?.array?.compactMap(\.string)
        return own ?? ["reboot", "sudo -n reboot", "shutdown -f -t 3 -r"]
    }
}
