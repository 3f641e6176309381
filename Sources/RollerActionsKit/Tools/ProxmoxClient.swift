// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import RollerKit

/// Talks to the API of a Proxmox node: changes are tasks, which end some time after they were accepted.
struct ProxmoxClient {
    var context: ActionContext
    let control: Control
    private let machine: String
    private let node: String

    /// A client for the machine that the control's locator names: `node`, `vmid`, and `type` where it is a container.
    init(_ context: ActionContext, _ control: Control) throws(ActionError) {
        self.context = context
        self.control = control
        (node, machine) = try Self.place(control)
    }

    /// The node and the path of the machine on it.
    static func place(_ control: Control) throws(ActionError) -> (node: String, machine: String) {
        let vmid = control.locator["vmid"].flatMap { $0.int.map(String.init) ?? $0.string } ?? ""
        let type = control.setting("type")?.string ?? "qemu"
        guard let node = control.setting("node")?.string, isWord(node), let id = Int(vmid), id > 0,
            ["qemu", "lxc"].contains(type)
        else {
            throw ActionError(.config, "the control at \(control.name) needs a node and the vmid of a machine")
        }
        return (node, "\(type)/\(id)")
    }

    private static func isWord(_ text: String) -> Bool {
        !text.isEmpty && !text.hasPrefix("-")
            && text.utf8.allSatisfy { byte in
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || byte == UInt8(ascii: "-")
            }
    }

    // MARK: - What a machine can be asked

    /// What a machine is told to do.
    enum Command: String, Hashable {
        case start, stop, shutdown, reboot, reset
    }

    /// Whether the machine runs.
    func power() async throws(ActionError) -> PowerState {
        switch try await call("GET", "\(machine)/status/current")["status"]?.string {
        case "running": .on
        case "stopped": .off
        default: .unknown
        }
    }

    /// Has the machine do something, as an attempt of its own, and waits until that has ended.
    func perform(_ command: Command, method: String, limit: Duration) async throws(ActionError) {
        let shown = ["POST", try control.host(), "\(node)/\(machine)/status/\(command.rawValue)"]
        let whole = limit + .seconds(60)
        try await context.attempt(method, control, changes: true, arguments: shown, limit: whole) {
            () async throws(ActionError) -> (Void, AttemptEnd) in
            // A machine that does not shut down in time keeps running, and the task says so.
            let seconds = limit.components.seconds
            let form = command == .reboot || command == .shutdown ? "timeout=\(seconds)" : ""
            let answer: JSONValue
            do throws(ActionError) {
                answer = try await call("POST", "\(machine)/status/\(command.rawValue)", form: form)
            } catch {
                // The request may have arrived although its answer has not.
                throw error.kind == .timeout ? error.asUnverified : error
            }
            guard let task = answer.string else { throw ActionError(.other, "the node named no task") }
            try await wait(for: task, limit: limit + .seconds(30))
            return ((), AttemptEnd(.ok, summary: "\(command.rawValue) has ended well"))
        }
    }

    private func wait(for task: String, limit: Duration) async throws(ActionError) {
        guard !task.isEmpty, task.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f && !"/?#%".utf8.contains($0) }) else {
            throw ActionError(.other, "the name of the node's task cannot be used")
        }
        let end = ContinuousClock.now + limit
        while ContinuousClock.now < end {
            let state = try await call("GET", "tasks/\(task)/status")
            if state["status"]?.string == "stopped" {
                let how = state["exitstatus"]?.string ?? "unknown"
                guard how == "OK" || how.hasPrefix("WARNINGS") else {
                    throw ActionError(.other, "the node's task ended with: \(how.prefix(100))")
                }
                return
            }
            try await context.pause(.seconds(1))
        }
        throw ActionError(.timeout, "the node's task did not end in time", outcome: .unverified)
    }

    // MARK: - The API

    private func call(_ method: String, _ path: String, form: String? = nil) async throws(ActionError) -> JSONValue {
        let credential = try context.credential(of: control)
        guard let token = credential.token, token.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
            throw ActionError(.config, "the credential of \(control.name) lacks a token, USER@REALM!NAME=SECRET")
        }
        var reached = control
        if reached.port == nil { reached.port = 8006 }
        let response = try await ControllerHTTP(context: context, control: reached).send(
            method,
            "/api2/json/nodes/\(node)/\(path)",
            headers: [("Authorization", "PVEAPIToken=\(token)"), ("Accept", "application/json")],
            body: form.map { Array($0.utf8) },
            contentType: "application/x-www-form-urlencoded"
        )
        guard response.status == 200 else { throw Self.failure(response) }
        guard let data = (try? response.json())?["data"] else {
            throw ActionError(.other, "the node's answer cannot be used")
        }
        return data
    }

    private static func failure(_ response: HTTPResponse) -> ActionError {
        let told = (try? response.json())?["message"]?.string.map { $0.filter { !$0.isNewline } } ?? ""
        let words = told.isEmpty ? "" : ": \(told.prefix(100))"
        return switch response.status {
        case 401, 403: ActionError(.credentials, "the node does not accept our token (\(response.status))")
        case 501: ActionError(.unsupported, "the node cannot do this\(words)")
        case 595, 596, 599: ActionError(.unreachable, "the cluster does not reach the node", isRetriable: true)
        default: ActionError(.other, "the node answered \(response.status)\(words)")
        }
    }
}
