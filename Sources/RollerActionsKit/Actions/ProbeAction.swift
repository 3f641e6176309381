// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
package import RollerKit

/// `probe`: asks every control of a machine something harmless, with the credentials that real work would use.
package struct ProbeAction: RollerAction {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "probe",
        title: "Test controls",
        summary: "Asks every control of the machine something harmless, and tells which of them would obey.",
        isDestructive: false,
        isReadOnly: true
    )

    /// An action without settings of its own.
    package init() {}

    /// What one control had to say.
    private struct Verdict: Sendable {
        /// Nil where there is nothing harmless to ask.
        var isGood: Bool?
        var summary: String
        var power: PowerState?
        var kind: ActionError.Kind?
    }

    /// A line for each control.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        target.controls.map { "ask \($0.label)" }
    }

    /// Asks all of them side by side.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let controls = context.target.controls
        guard !controls.isEmpty else {
            throw ActionError(.config, "no control is configured for \(context.target.name)")
        }
        let verdicts = await withTaskGroup(of: (Int, Verdict).self) { group in
            for (index, control) in controls.enumerated() {
                group.addTask { (index, await verdict(context, control)) }
            }
            return await group.reduce(into: [Int: Verdict]()) { $0[$1.0] = $1.1 }
        }
        let views = controls.indices.map { view(controls[$0], verdicts[$0]) }
        let details: JSONObject = ["machine": JSONValue(context.target.name), "controls": .array(views)]
        let bad = controls.indices.filter { verdicts[$0]?.isGood == false }
        guard let first = bad.first else {
            let asked = verdicts.values.count { $0.isGood == true }
            return ActionResult("\(asked) of \(controls.count) controls were asked, and all would obey", details)
        }
        let names = bad.map { controls[$0].label }.joined(separator: ", ")
        var error = ActionError(
            verdicts[first]?.kind ?? .other,
            "\(bad.count) of \(controls.count) controls fail: \(names)"
        )
        error.details = details
        throw error
    }

    private func view(_ control: Control, _ verdict: Verdict?) -> JSONValue {
        [
            "control": JSONValue(control.name), "kind": JSONValue(control.kind.rawValue),
            "ok": verdict?.isGood.map { JSONValue($0) } ?? .null, "summary": JSONValue(verdict?.summary ?? ""),
            "power": verdict?.power.map { JSONValue($0.rawValue) } ?? .null,
            "error_class": verdict?.kind.map { JSONValue($0.name) } ?? .null,
        ]
    }

    private func verdict(_ context: ActionContext, _ control: Control) async -> Verdict {
        do {
            return try await withTimeout(.seconds(60)) { try await ask(context, control) }
        } catch let error as ActionError {
            return Verdict(isGood: false, summary: error.message, kind: error.kind)
        } catch {
            return Verdict(isGood: false, summary: "no answer within a minute", kind: .timeout)
        }
    }

    private func ask(_ context: ActionContext, _ control: Control) async throws -> Verdict {
        switch control.kind {
        case .ssh: return try await logIn(context, control)
        case .xen: return try await find(context, control)
        case .wakeOnLAN:
            guard control.locator["mac"]?.string ?? context.target.mac != nil else {
                throw ActionError(.config, "no hardware address of \(context.target.name) is known")
            }
            return Verdict(summary: "nobody answers a wake-up packet, so none was sent")
        case .exec: return Verdict(summary: "a program of your own cannot be asked without running it")
        default:
            let power = try await PowerAccess(context: context, control: control).power()
            return Verdict(isGood: true, summary: "the power is \(power.rawValue)", power: power)
        }
    }

    /// Logs in; a machine that refuses the command itself, as a forced command does, has let us in nevertheless.
    private func logIn(_ context: ActionContext, _ control: Control) async throws(ActionError) -> Verdict {
        let shown = ["ssh", "-l", try SSHClient.login(control), "--", try context.target.host(), "true"]
        return try await context.attempt("probe", control, changes: false, arguments: shown) {
            () async throws(ActionError) -> (Verdict, AttemptEnd) in
            let (ending, output) = try await SSHClient(context: context, control: control).run("true")
            let summary: String
            switch ending {
            case .exited(0): summary = "the login works"
            case .exited(let code): summary = "the login works, the command true does not (\(code))"
            case .hostKeyMismatch: throw ActionError(.refused, "the host key is not the one that was accepted")
            case .denied: throw ActionError(.credentials, "the machine does not accept our key")
            case .timeout: throw ActionError(.timeout, "the machine did not answer in time")
            case .broken, .unreachable: throw ActionError(.unreachable, "the machine does not answer SSH")
            }
            let end = AttemptEnd(.ok, exitCode: output.code, summary: summary, output: output.text)
            return (Verdict(isGood: true, summary: summary), end)
        }
    }

    /// Finds the virtual machine, in a session that ends.
    private func find(_ context: ActionContext, _ control: Control) async throws(ActionError) -> Verdict {
        let id = try XenAPIReboot.machine(control)
        let shown = ["POST", try control.host(), "VM.get_by_uuid", id]
        return try await context.attempt("probe", control, changes: false, arguments: shown) {
            () async throws(ActionError) -> (Verdict, AttemptEnd) in
            var client = XenClient(context, control)
            try await client.logIn()
            let found: Result<String, XenClient.Failure>
            do throws(ActionError) {
                found = try await client.callInSession("VM.get_by_uuid", [.text(id)])
                await client.logOut()
            } catch {
                await client.logOut()
                throw error
            }
            guard case .success = found else { throw ActionError(.config, "the server knows no such virtual machine") }
            let summary = "the server knows the virtual machine"
            return (Verdict(isGood: true, summary: summary), AttemptEnd(.ok, summary: summary))
        }
    }
}
