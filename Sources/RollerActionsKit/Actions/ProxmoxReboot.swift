// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `proxmox_reboot`: restarts a virtual machine, by a reset if it does not listen.
package struct ProxmoxReboot: RebootMethod {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "proxmox_reboot",
        title: "Proxmox reboot",
        summary: "Restarts the virtual machine, hard if it does not shut down within a minute.",
        isDestructive: true,
        controls: [.proxmox]
    )

    /// An action without settings of its own.
    package init() {}

    private static let patience = Duration.seconds(60)

    /// A clean shutdown takes its time.
    package func budget(_ target: ActionTarget) -> Duration { .seconds(180) }

    /// The calls.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        let control = try target.control(.proxmox)
        let (node, machine) = try ProxmoxClient.place(control)
        return ["POST reboot, else reset, of \(node)/\(machine) at \(try control.host())"]
    }

    /// Restarts it; one that was off is started.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let control = try context.target.control(.proxmox)
        let client = try ProxmoxClient(context, control)
        if try await client.power() == .off {
            try await Self.restore(client)
            await context.conduct.fulfilPower(context.target)
            return ActionResult("the virtual machine was off and is started", ["shutdown": "was off"])
        }
        try await context.conduct.intendPower(context.target, by: control)
        var how = "clean"
        var failure: ActionError?
        do throws(ActionError) { how = try await restart(client) } catch { failure = error }
        // The node stops the machine and starts it again: if it got stuck in between, that is put right here.
        do throws(ActionError) {
            try await context.uninterrupted { () async throws(ActionError) in try await Self.restore(client) }
        } catch {
            throw failure ?? error
        }
        await context.conduct.fulfilPower(context.target)
        if let failure { throw failure }
        return ActionResult(
            "the virtual machine was restarted (\(how))",
            ["shutdown": JSONValue(how)],
            isVerified: false
        )
    }

    private func restart(_ client: ProxmoxClient) async throws(ActionError) -> String {
        do throws(ActionError) {
            try await client.perform(.reboot, method: description.name, limit: Self.patience)
            return "clean"
        } catch  where [.other, .unsupported].contains(error.kind) && error.outcome == .failed {
            try await client.perform(.reset, method: description.name, limit: Self.patience)
            return "hard"
        }
    }

    /// Starts the machine unless it runs, five times if need be, and looks.
    static func restore(_ client: ProxmoxClient) async throws(ActionError) {
        var client = client
        client.context = client.context.restoring()
        var last = ActionError(.unverified, "the virtual machine does not run")
        for attempt in 1...5 {
            try await client.context.conduct.checkOwnership()
            do throws(ActionError) {
                if try await client.power() == .on { return }
                try await client.perform(.start, method: "proxmox_start", limit: patience)
                if try await client.power() == .on { return }
            } catch {
                if error.kind == .lost { throw error }
                last = error
            }
            if attempt < 5 { try await client.context.pause(.seconds(2)) }
        }
        throw last
    }
}
