// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `xenapi_reboot`: shuts a virtual machine down, hard if it does not listen, and starts it again.
package struct XenAPIReboot: RebootMethod {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "xenapi_reboot",
        title: "Xen reboot",
        summary: "Shuts the virtual machine down and starts it again.",
        isDestructive: true,
        controls: [.xen]
    )

    /// An action without settings of its own.
    package init() {}

    /// A clean shutdown takes its time.
    package func budget(_ target: ActionTarget) -> Duration { .seconds(180) }

    /// The calls.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        let control = try target.control(.xen)
        let id = try Self.machine(control)
        return [
            "VM.clean_shutdown or VM.hard_shutdown of \(id) at \(try control.host())", "wait 5 s", "VM.start of \(id)",
        ]
    }

    /// Makes the calls in one session.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let control = try context.target.control(.xen)
        let id = try Self.machine(control)
        let shown = ["POST", try control.host(), "VM.clean_shutdown", id]
        let name = description.name
        return try await context.attempt(name, control, changes: true, arguments: shown, limit: .seconds(300)) {
            () async throws(ActionError) -> (ActionResult, AttemptEnd) in
            var client = XenClient(context, control)
            try await client.logIn()
            do throws(ActionError) {
                let how = try await Self.restart(&client, id, context)
                await client.logOut()
                let summary = "the virtual machine was shut down (\(how)) and started"
                return (ActionResult(summary, ["shutdown": JSONValue(how)]), AttemptEnd(.ok, summary: summary))
            } catch {
                await client.logOut()
                throw error
            }
        }
    }

    private static func restart(
        _ client: inout XenClient,
        _ id: String,
        _ context: ActionContext
    ) async throws(ActionError) -> String {
        let machine: String
        switch try await client.callInSession("VM.get_by_uuid", [.text(id)]) {
        case .success(let reference): machine = reference
        case .failure(let failure):
            throw ActionError(.config, "the Xen server does not know the machine (\(failure.code))")
        }
        try await context.conduct.intendPower(context.target, by: client.control)
        var how = "clean"
        var failure: ActionError?
        do throws(ActionError) { how = try await shutDown(&client, machine) } catch { failure = error }
        // The machine is off, or may be: nothing but the loss of the job keeps it so.
        let shared = client
        client = try await context.uninterrupted { () async throws(ActionError) in
            var client = shared
            try await Self.start(&client, machine, context.restoring())
            return client
        }
        await context.conduct.fulfilPower(context.target)
        if let failure { throw failure }
        return how
    }

    private static func shutDown(_ client: inout XenClient, _ machine: String) async throws(ActionError) -> String {
        guard case .failure(let clean) = try await client.callInSession("VM.clean_shutdown", [.text(machine)]) else {
            return "clean"
        }
        if clean.code == "VM_BAD_POWER_STATE" { return "was off" }
        if case .failure(let hard) = try await client.callInSession("VM.hard_shutdown", [.text(machine)]),
            hard.code != "VM_BAD_POWER_STATE"
        {
            throw ActionError(.other, "the machine cannot be shut down (\(hard.code.prefix(60)))")
        }
        return "hard"
    }

    /// Starts the machine, five times if need be.
    static func start(_ client: inout XenClient, _ machine: String, _ context: ActionContext) async throws(ActionError)
    {
        try await context.pause(.seconds(client.control.setting("delay")?.int ?? 5))
        var last = ActionError(.other, "the machine was not started")
        for attempt in 1...5 {
            try await context.conduct.checkOwnership()
            do throws(ActionError) {
                let arguments: [XenClient.Argument] = [.text(machine), .bool(false), .bool(false)]
                switch try await client.callInSession("VM.start", arguments) {
                case .success: return
                case .failure(let failure) where failure.code == "VM_BAD_POWER_STATE": return
                case .failure(let failure):
                    last = ActionError(.other, "the machine cannot be started (\(failure.code.prefix(60)))")
                }
            } catch {
                last = error
            }
            if attempt < 5 { try await context.pause(.seconds(2)) }
        }
        throw last
    }

    static func machine(_ control: Control) throws(ActionError) -> String {
        guard let id = control.locator["vm_uuid"]?.string, id.allSatisfy({ $0.isHexDigit || $0 == "-" }) else {
            throw ActionError(.config, "the control at \(control.name) names no virtual machine")
        }
        return id
    }
}
