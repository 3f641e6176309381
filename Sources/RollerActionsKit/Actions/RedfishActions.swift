// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `redfish_status`, `redfish_on`, `redfish_reset` and their kin.
package struct RedfishAction: RebootMethod {
    private enum Kind: Hashable {
        case status
        case power(RedfishVerb)
        case bootFromNetwork
    }

    /// The name in requests and the text of the button.
    package let description: ActionDescription
    private let kind: Kind

    private init(_ name: String, _ kind: Kind, _ title: String, _ summary: String) {
        self.kind = kind
        var isDestructive = false
        if case .power = kind { isDestructive = true }
        description = ActionDescription(
            name,
            title: title,
            summary: summary,
            isDestructive: isDestructive,
            isReadOnly: kind == .status,
            controls: [.redfish]
        )
    }

    /// All of them.
    package static let all = [
        RedfishAction("redfish_status", .status, "Redfish status", "Asks the controller for power state and health."),
        RedfishAction("redfish_on", .power(.on), "Redfish power on", "Switches the machine on."),
        RedfishAction("redfish_off", .power(.off), "Redfish power off", "Switches the machine off; it stays off."),
        RedfishAction("redfish_soft", .power(.soft), "Redfish soft off", "Asks the operating system to shut down."),
        RedfishAction("redfish_reboot", .power(.reboot), "Redfish restart", "Asks the operating system to restart."),
        RedfishAction("redfish_reset", .power(.reset), "Redfish reset", "Restarts the machine at once."),
        RedfishAction("redfish_cycle", .power(.cycle), "Redfish power cycle", "Takes the power away for a moment."),
        RedfishAction(
            "redfish_bootdev_pxe",
            .bootFromNetwork,
            "Redfish boot from network",
            "The next boot comes from the network."
        ),
    ]

    /// Soft methods leave it to the operating system.
    package var isHard: Bool { kind != .power(.soft) && kind != .power(.reboot) }

    /// Two minutes: states lag behind.
    package func budget(_ target: ActionTarget) -> Duration { .seconds(120) }

    /// The request.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        let control = try target.control(.redfish)
        let system = control.setting("system")?.string ?? "the only system"
        let host = try control.host()
        switch kind {
        case .status: return ["GET \(system) at \(host)"]
        case .power(let verb):
            return ["POST \(system) at \(host), ResetType \(verb.resetTypes.joined(separator: " or "))"]
        case .bootFromNetwork: return ["PATCH \(system) at \(host), boot once from Pxe"]
        }
    }

    /// Asks the service and looks whether it did it.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let control = try context.target.control(.redfish)
        let client = RedfishClient(context: context, control: control)
        switch kind {
        case .status: return try await status(client)
        case .bootFromNetwork:
            try await client.bootFromNetwork(method: description.name)
            return ActionResult("the next boot comes from the network")
        case .power(let verb):
            return try await change(verb, client)
        }
    }

    private func status(_ client: RedfishClient) async throws(ActionError) -> ActionResult {
        let shown = ["GET", try client.control.host()]
        return try await client.context.attempt(description.name, client.control, changes: false, arguments: shown) {
            () async throws(ActionError) -> (ActionResult, AttemptEnd) in
            let status = try await client.status()
            let summary = "the power is \(status["power"]?.string ?? "unknown")"
            return (ActionResult(summary, status), AttemptEnd(.ok, summary: summary))
        }
    }

    private func change(_ verb: RedfishVerb, _ client: RedfishClient) async throws(ActionError) -> ActionResult {
        let name = description.name
        var verb = verb
        // A restart of a machine without power does nothing at some services.
        if [.reset, .cycle, .reboot].contains(verb), try await client.power() == .off { verb = .on }
        if try await client.reset(verb, method: name) {
            switch verb {
            case .on, .off:
                let wanted: PowerState = verb == .on ? .on : .off
                let isThere = try await client.wait(for: wanted)
                if isThere, verb == .on { await client.context.conduct.fulfilPower(client.context.target) }
                guard isThere else { throw ActionError(.unverified, "the service still shows another power state") }
                return ActionResult("the power is \(wanted.rawValue)", ["power": JSONValue(wanted.rawValue)])
            default:
                return ActionResult("the service accepted \(name)", isVerified: false)
            }
        }
        guard verb == .cycle else { throw ActionError(.unsupported, "the service offers no way to do this") }
        return try await offAndOn(client)
    }

    private func offAndOn(_ client: RedfishClient) async throws(ActionError) -> ActionResult {
        let name = description.name
        let context = client.context
        try await context.conduct.intendPower(context.target, by: client.control)
        var failure: ActionError?
        do throws(ActionError) {
            guard try await client.reset(.off, method: name) else {
                throw ActionError(.unsupported, "the service cannot switch the machine off")
            }
            if try await !client.wait(for: .off) { throw ActionError(.unverified, "the machine did not go off") }
        } catch {
            failure = error
        }
        do throws(ActionError) {
            try await context.uninterrupted { () async throws(ActionError) in try await Self.restore(client, name) }
        } catch {
            throw failure ?? error
        }
        await context.conduct.fulfilPower(context.target)
        if let failure { throw failure }
        return ActionResult("the power was off and is on again", ["power": "on"])
    }

    /// Switches on, five times if need be, and looks.
    static func restore(_ client: RedfishClient, _ method: String) async throws(ActionError) {
        var client = client
        client.context = client.context.restoring()
        var last = ActionError(.unverified, "the machine did not go on")
        for attempt in 1...5 {
            do throws(ActionError) {
                _ = try await client.reset(.on, method: method)
                if try await client.wait(for: .on) { return }
            } catch {
                if error.kind == .lost { throw error }
                last = error
            }
            if attempt < 5 { try await client.context.pause(.seconds(2)) }
        }
        throw last
    }
}
