// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
package import RollerKit

/// `status`: looks at a machine from all sides at once; a side that does not answer is part of the answer.
package struct StatusAction: RollerAction {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "status",
        title: "Status",
        summary: "Looks whether the machine answers pings and SSH, and what its controllers say about its power.",
        isDestructive: false,
        isReadOnly: true,
        needsMachine: false
    )

    /// An action without settings of its own.
    package init() {}

    /// The sides.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        let host = try target.host()
        return ["ping \(host)", "connect to \(host) port 22"] + readable(target).map { "power state by \($0.label)" }
    }

    /// Asks all sides.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let host = try context.target.host()
        let port = context.target.controls(.ssh).first?.port ?? 22
        async let pings = reachable(context, host)
        async let ssh = TCPPort.isOpen(host, port, within: .seconds(5))
        async let powers = powers(context)
        let (answers, isOpen, states) = await (pings, ssh, powers)
        var details: JSONObject = ["ping": answers, "ssh_port_open": JSONValue(isOpen), "power": .object(states)]
        details["machine"] = JSONValue(context.target.name)
        let sides = states.map { "\($0.key) \($0.value.string ?? "?")" }.joined(separator: ", ")
        let word = answers.bool == true ? "answers" : "does not answer"
        return ActionResult("\(context.target.name) \(word)" + (sides.isEmpty ? "" : "; \(sides)"), details)
    }

    private func readable(_ target: ActionTarget) -> [Control] {
        target.controls.filter { PowerAccess.readable.contains($0.kind) }
    }

    private func reachable(_ context: ActionContext, _ host: String) async -> JSONValue {
        do { return JSONValue(try await Pinger(tools: context.tools).answers(host)) } catch {
            return JSONValue(String(describing: error))
        }
    }

    private func powers(_ context: ActionContext) async -> JSONObject {
        await withTaskGroup(of: (String, String).self) { group in
            for control in readable(context.target) {
                group.addTask {
                    do {
                        let state = try await withTimeout(.seconds(30)) {
                            try await PowerAccess(context: context, control: control).power()
                        }
                        return (control.label, state.rawValue)
                    } catch let error as ActionError {
                        return (control.label, "unknown (\(error.kind.name))")
                    } catch {
                        return (control.label, "unknown (timeout)")
                    }
                }
            }
            var result = JSONObject()
            for await (name, state) in group { result[name] = JSONValue(state) }
            return result
        }
    }
}
