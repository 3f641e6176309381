// SPDX-License-Identifier: MPL-2.0

import JSON
import RollerKit

/// Talks to older iLO boards in their own language; newer ones speak Redfish.
struct RIBCL {
    let context: ActionContext
    let control: Control

    enum Command: String {
        case status = "<GET_HOST_POWER_STATUS/>"
        case reset = "<RESET_SERVER/>"
        case off = "<SET_HOST_POWER HOST_POWER=\"No\"/>"
        case on = "<SET_HOST_POWER HOST_POWER=\"Yes\"/>"

        var mode: String { self == .status ? "read" : "write" }
    }

    /// The document for a command.
    static func document(_ command: Command, user: String, password: String) -> String {
        "<?xml version=\"1.0\"?>\r\n<RIBCL VERSION=\"2.0\"><LOGIN USER_LOGIN=\"\(XML.escaped(user))\" "
            + "PASSWORD=\"\(XML.escaped(password))\"><SERVER_INFO MODE=\"\(command.mode)\">\(command.rawValue)"
            + "</SERVER_INFO></LOGIN></RIBCL>\r\n"
    }

    /// Sends a command and answers the documents that came back.
    func send(_ command: Command, timeout: Duration = .seconds(60)) async throws(ActionError) -> [XMLElement] {
        let credential = try context.credential(of: control)
        guard let user = credential.username, let password = credential.password else {
            throw ActionError(.config, "the credential of \(control.name) lacks user or password")
        }
        let response = try await ControllerHTTP(context: context, control: control).send(
            "POST",
            "/ribcl",
            headers: [("TE", "chunked"), ("Connection", "Close")],
            body: Array(Self.document(command, user: user, password: password).utf8),
            contentType: "application/x-www-form-urlencoded",
            timeout: timeout
        )
        guard response.status == 200, let documents = XML.documents(String(decoding: response.body, as: UTF8.self))
        else {
            throw ActionError(.other, "the iLO board answered \(response.status)")
        }
        if let failure = Self.failure(documents) { throw failure }
        return documents
    }

    /// Whether the machine has power.
    func power() async throws(ActionError) -> PowerState { Self.power(try await send(.status)) }

    static func power(_ documents: [XMLElement]) -> PowerState {
        for document in documents {
            switch document.first("GET_HOST_POWER")?.attributes["HOST_POWER"]?.uppercased() {
            case "ON": return .on
            case "OFF": return .off
            default: continue
            }
        }
        return .unknown
    }

    /// The first status that is not zero.
    static func failure(_ documents: [XMLElement]) -> ActionError? {
        for response in documents.flatMap({ $0.all("RESPONSE") }) {
            let status = response.attributes["STATUS"]?.lowercased() ?? "0x0000"
            switch status {
            case "0x0000": continue
            case "0x005f", "0x000a": return ActionError(.credentials, "the iLO board does not accept our credentials")
            case "0x0023": return ActionError(.config, "the user may not do this at the iLO board")
            case "0x003c", "0x0001": return ActionError(.unsupported, "the iLO board cannot do this (\(status))")
            default: return ActionError(.other, "the iLO board answered \(status.prefix(10))")
            }
        }
        return nil
    }
}
