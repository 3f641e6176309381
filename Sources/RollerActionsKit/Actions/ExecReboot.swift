// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `exec_reboot`: runs a program of the operator's own, for controllers that nothing else here speaks to.
///
/// The controller's option `argv` is the program and its arguments; the program is a file in the folder of plug-ins, so
/// that whoever writes the inventory cannot run just anything. Nothing passes through a shell.
package struct ExecReboot: RebootMethod {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "exec_reboot",
        title: "Plug-in",
        summary: "Runs the program that the machine's controller names.",
        isDestructive: true,
        controls: [.exec]
    )

    /// An action without settings of its own.
    package init() {}

    /// The exit code that asks for another try.
    private static let tryAgain = 75
    private static let tries = 3

    /// The limit of the program, as often as it may ask for.
    package func budget(_ target: ActionTarget) -> Duration {
        target.controls(.exec).first.map { Self.limit($0) * Self.tries } ?? .seconds(60)
    }

    /// The one program.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        [try Self.words(job, target, settings).joined(separator: " ")]
    }

    /// Runs it; the last line of its output may be an object with results.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let control = try context.target.control(.exec)
        let words = try Self.words(context.job, context.target, context.settings)
        var invocation = ToolInvocation(words, limit: Self.limit(control))
        invocation.environment = try Self.secrets(context, control)
        invocation.environment["ROLLER_JOB_ID"] = context.job.id
        let name = description.name
        let whole = Self.limit(control) * Self.tries + .seconds(60)
        return try await context.attempt(name, control, changes: true, arguments: words, limit: whole) {
            () async throws(ActionError) -> (ActionResult, AttemptEnd) in
            var output = try await context.tools.run(invocation)
            for _ in 1..<Self.tries where output.code == Self.tryAgain {
                try await context.pause(.seconds(5))
                output = try await context.tools.run(invocation)
            }
            // A program that was ended may have done its work before.
            if output.timedOut { throw ActionError(.timeout, "the program did not end in time", outcome: .unverified) }
            guard output.code == 0 else { throw ActionError(.other, "the program ended with status \(output.code)") }
            let end = AttemptEnd(.ok, exitCode: 0, summary: "the program succeeded", output: output.text)
            return (ActionResult("the program succeeded", Self.result(output.text), isVerified: false), end)
        }
    }

    // MARK: - The command line

    private static func limit(_ control: Control) -> Duration {
        .seconds(min(max(control.setting("timeout")?.int ?? 60, 1), 600))
    }

    static func words(
        _ job: ActionJob,
        _ target: ActionTarget,
        _ settings: ActionSettings
    ) throws(ActionError) -> [String] {
        let control = try target.control(.exec)
        let template = control.options["argv"]?.array?.compactMap(\.string) ?? []
        return try PlugIn(template, of: "the option argv of \(control.name)").words(job, target, settings, control)
    }

    /// Variables that the option `environment` maps to members of the credential.
    private static func secrets(_ context: ActionContext, _ control: Control) throws(ActionError) -> [String: String] {
        var variables: [String: String] = [:]
        guard let wanted = control.options["environment"]?.object, !wanted.isEmpty else { return variables }
        let credential = try context.credential(of: control)
        for (name, member) in wanted {
            let value: String? =
                switch member.string {
                case "username": credential.username
                case "password": credential.password
                case "community": credential.community
                case "token": credential.token
                default: nil
                }
            let isName = name.utf8.allSatisfy { byte in
                (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) || byte == UInt8(ascii: "_")
            }
            guard let value, isName, !["PATH", "LD_PRELOAD", "HOME"].contains(name) else {
                throw ActionError(.config, "the option environment of \(control.name) is not well formed")
            }
            variables[name] = value
        }
        return variables
    }

    private static func result(_ text: String) -> JSONObject {
        guard let line = text.split(separator: "\n").last, line.first == "{",
            let object = (try? JSONValue(parsing: String(line)))?.object
        else { return [:] }
        return object
    }
}
