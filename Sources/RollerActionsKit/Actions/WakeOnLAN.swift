// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `wol`: wakes a machine through its network card; it only ever switches on.
package struct WakeOnLAN: RebootMethod {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "wol",
        title: "Wake up",
        summary: "Sends the wake-up packet to the machine's network card. Only switches on.",
        isDestructive: false,
        controls: [.wakeOnLAN]
    )

    /// An action without settings of its own.
    package init() {}

    /// The packet.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        let control = try target.control(.wakeOnLAN)
        return ["3 wake-up packets for \(try mac(target, control)) to \(broadcast(control)) port \(control.port ?? 9)"]
    }

    /// Sends it three times.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let control = try context.target.control(.wakeOnLAN)
        var password: String?
        if control.credential != nil { password = try context.credential(of: control).password }
        let mac = try mac(context.target, control)
        let packet = try WakeUpPacket(mac: mac, password: password)
        let shown = ["wake", mac, broadcast(control)]
        return try await context.attempt("wol", control, changes: true, arguments: shown) {
            () async throws(ActionError) -> (ActionResult, AttemptEnd) in
            for number in 1...3 {
                try packet.send(to: broadcast(control), port: control.port ?? 9)
                if number < 3 { try await context.pause(.milliseconds(200)) }
            }
            return (ActionResult("3 packets sent", isVerified: false), AttemptEnd(.ok, summary: "3 packets sent"))
        }
    }

    private func mac(_ target: ActionTarget, _ control: Control) throws(ActionError) -> String {
        guard let mac = control.locator["mac"]?.string ?? target.mac else {
            throw ActionError(.config, "no hardware address of \(target.name) is known")
        }
        return mac
    }

    private func broadcast(_ control: Control) -> String { control.address ?? "255.255.255.255" }
}
