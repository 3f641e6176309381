// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import RollerKit

/// What is asked of a Redfish service, and the reset types that do it, the preferred first.
enum RedfishVerb: String, Hashable {
    case on, off, soft, reset, cycle, reboot

    var resetTypes: [String] {
        switch self {
        case .on: ["On", "ForceOn"]
        case .off: ["ForceOff"]
        case .soft: ["GracefulShutdown"]
        case .reset: ["ForceRestart"]
        case .cycle: ["PowerCycle"]
        case .reboot: ["GracefulRestart", "ForceRestart"]
        }
    }
}

/// Talks to a Redfish service: with the user and password in each request, so that no session can be left open.
struct RedfishClient {
    var context: ActionContext
    let control: Control

    private struct System {
        var path: String
        var body: JSONValue
        var eTag: String?
    }

    /// Whether the machine has power.
    func power() async throws(ActionError) -> PowerState { Self.power(try await system().body) }

    static func power(_ system: JSONValue) -> PowerState {
        switch system["PowerState"]?.string {
        case "On": .on
        case "Off": .off
        default: .unknown
        }
    }

    /// The model, the maker and the power state, as the service tells them.
    func status() async throws(ActionError) -> JSONObject {
        let body = try await system().body
        var result: JSONObject = ["power": JSONValue(Self.power(body).rawValue)]
        for (ours, theirs) in [("model", "Model"), ("manufacturer", "Manufacturer"), ("health", "Status")] {
            if let value = theirs == "Status" ? body["Status"]?["Health"] : body[theirs], !value.isNull {
                result[ours] = value
            }
        }
        return result
    }

    /// Sends the first reset type that the service takes; false when it takes none.
    func reset(_ verb: RedfishVerb, method: String) async throws(ActionError) -> Bool {
        let (path, offered) = try await resetAction()
        let wanted = verb.resetTypes.filter { offered.isEmpty || offered.contains($0) }
        for type in wanted {
            do throws(ActionError) {
                try await post(type, path, method: method)
                return true
            } catch  where error.kind == .unsupported {
                continue
            }
        }
        return false
    }

    private func resetAction() async throws(ActionError) -> (path: String, offered: [String]) {
        let system = try await system()
        let action = system.body["Actions"]?["#ComputerSystem.Reset"]
        guard let path = action?["target"]?.string else {
            throw ActionError(.unsupported, "the Redfish service of \(control.name) offers no reset")
        }
        return (path, action?["ResetType@Redfish.AllowableValues"]?.array?.compactMap(\.string) ?? [])
    }

    private func post(_ type: String, _ path: String, method: String) async throws(ActionError) {
        let shown = ["POST", try http.origin() + path, "ResetType=\(type)"]
        try await context.attempt(method, control, changes: true, arguments: shown) {
            () async throws(ActionError) -> (Void, AttemptEnd) in
            let body: JSONValue = ["ResetType": JSONValue(type)]
            let response = try await exchange("POST", path, body: body)
            return ((), AttemptEnd(.ok, exitCode: response.status, summary: "the service accepted \(type)"))
        }
    }

    /// Waits until the service shows a power state; it may lag behind by a minute.
    func wait(for wanted: PowerState, within limit: Duration = .seconds(60)) async throws(ActionError) -> Bool {
        let end = ContinuousClock.now + limit
        while true {
            if try await power() == wanted { return true }
            guard ContinuousClock.now < end else { return false }
            try await context.pause(.seconds(1))
        }
    }

    /// Lets the next boot come from the network.
    func bootFromNetwork(method: String) async throws(ActionError) {
        let system = try await system()
        let shown = ["PATCH", try http.origin() + system.path, "BootSourceOverrideTarget=Pxe"]
        try await context.attempt(method, control, changes: true, arguments: shown) {
            () async throws(ActionError) -> (Void, AttemptEnd) in
            var boot: JSONObject = ["BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once"]
            if let mode = control.setting("boot_mode") { boot["BootSourceOverrideMode"] = mode }
            let headers = system.eTag.map { [("If-Match", $0)] } ?? []
            let response = try await exchange("PATCH", system.path, body: ["Boot": .object(boot)], headers: headers)
            return ((), AttemptEnd(.ok, exitCode: response.status, summary: "the next boot comes from the network"))
        }
    }

    // MARK: - The protocol

    private var http: ControllerHTTP { ControllerHTTP(context: context, control: control) }

    private func system() async throws(ActionError) -> System {
        let path = try await systemPath()
        let response = try await exchange("GET", path)
        return System(path: path, body: try json(response), eTag: response.headers["ETag"])
    }

    private func systemPath() async throws(ActionError) -> String {
        let configured = control.setting("system")?.string
        if let configured, configured.hasPrefix("/") { return configured }
        let root = try json(await exchange("GET", "/redfish/v1/"))
        guard let systems = root["Systems"]?["@odata.id"]?.string else {
            throw ActionError(.unsupported, "the Redfish service of \(control.name) knows no systems")
        }
        let list = try json(await exchange("GET", systems))
        let members = list["Members"]?.array?.compactMap { $0["@odata.id"]?.string } ?? []
        if let configured {
            if let path = members.first(where: { $0.split(separator: "/").last.map(String.init) == configured }) {
                return path
            }
            if let path = try await member(members, withUUID: configured) { return path }
            throw ActionError(.config, "the Redfish service of \(control.name) does not know the system")
        }
        guard members.count == 1 else {
            throw ActionError(.config, "\(control.name) has \(members.count) systems; the inventory must name one")
        }
        return members[0]
    }

    /// How many systems of one service are asked for their ids.
    private static let most = 64

    /// The system that has an id of its own, whatever the service calls it.
    private func member(_ members: [String], withUUID wanted: String) async throws(ActionError) -> String? {
        guard wanted.utf8.count == 36 else { return nil }
        for path in members.prefix(Self.most) {
            let uuid = try json(await exchange("GET", path))["UUID"]?.string
            if uuid?.lowercased() == wanted.lowercased() { return path }
        }
        return nil
    }

    private func json(_ response: HTTPResponse) throws(ActionError) -> JSONValue {
        do { return try response.json() } catch {
            throw ActionError(.other, "the Redfish service of \(control.name) answered no JSON")
        }
    }

    private func exchange(
        _ method: String,
        _ path: String,
        body: JSONValue? = nil,
        headers: [(String, String)] = []
    ) async throws(ActionError) -> HTTPResponse {
        let credential = try context.credential(of: control)
        let all = [try ControllerHTTP.basic(credential, control), ("Accept", "application/json")] + headers
        for attempt in 1... {
            let response = try await http.send(method, path, headers: all, body: body?.bytes(), timeout: .seconds(30))
            switch response.status {
            case 200..<300: return response
            case 401, 403: throw ActionError(.credentials, "the Redfish service does not accept our credentials")
            case 429, 503:
                guard attempt < 4 else { throw ActionError(.refused, "the Redfish service is busy", outcome: .failed) }
                try await context.pause(.seconds(2))
            case 400, 405, 501:
                throw ActionError(.unsupported, "the Redfish service cannot do this (\(response.status))")
            case 404: throw ActionError(.config, "the Redfish service knows no such resource")
            default: throw ActionError(.other, "the Redfish service answered \(response.status)")
            }
        }
        throw ActionError(.other, "the Redfish service did not answer")
    }
}
