// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import RollerKit

/// Talks to a XenServer by XML-RPC; every session that was opened is closed.
struct XenClient {
    /// A failure that the server described.
    struct Failure: Error {
        var code: String
        var rest: [String]
    }

    var context: ActionContext
    let control: Control
    /// The server that answers for the pool; another one than configured when that is not the master.
    private(set) var server: Control
    private(set) var session = ""

    init(_ context: ActionContext, _ control: Control) {
        self.context = context
        self.control = control
        server = control
    }

    /// Logs in, following the server to the master of its pool.
    mutating func logIn() async throws(ActionError) {
        let credential = try context.credential(of: control)
        guard let user = credential.username, let password = credential.password else {
            throw ActionError(.config, "the credential of \(control.name) lacks user or password")
        }
        for _ in 0..<3 {
            switch try await call("session.login_with_password", [.text(user), .text(password)]) {
            case .success(let value):
                session = value
                return
            case .failure(let failure) where failure.code == "HOST_IS_SLAVE":
                guard let master = failure.rest.first else { break }
                server.address = try HostName.validated(master)
            case .failure(let failure) where failure.code == "SESSION_AUTHENTICATION_FAILED":
                throw ActionError(.credentials, "the Xen server does not accept our credentials")
            case .failure(let failure):
                throw ActionError(.other, "the Xen server refused the login (\(failure.code.prefix(60)))")
            }
        }
        throw ActionError(.other, "the Xen pool has no master that we could find")
    }

    /// Logs out; a failure of that is nobody's problem but the server's.
    func logOut() async {
        guard !session.isEmpty else { return }
        do throws(ActionError) {
            _ = try await call("session.logout", [.text(session)])
        } catch {
            await context.conduct.note("xen", ["logout": JSONValue(error.kind.name)])
        }
    }

    /// Calls with the session, which is opened anew where it has expired.
    mutating func callInSession(_ method: String, _ arguments: [Argument]) async throws(ActionError) -> Result<
        String, Failure
    > {
        for _ in 0..<3 {
            let result = try await call(method, [.text(session)] + arguments)
            guard case .failure(let failure) = result, failure.code == "SESSION_INVALID" else { return result }
            try await logIn()
        }
        throw ActionError(.other, "the Xen server ends every session at once")
    }

    enum Argument: Hashable {
        case text(String)
        case bool(Bool)

        var xml: String {
            switch self {
            case .text(let text): "<string>\(XML.escaped(text))</string>"
            case .bool(let bool): "<boolean>\(bool ? 1 : 0)</boolean>"
            }
        }
    }

    private func call(_ method: String, _ arguments: [Argument]) async throws(ActionError) -> Result<String, Failure> {
        let parameters = arguments.map { "<param><value>\($0.xml)</value></param>" }.joined()
        let body =
            "<?xml version=\"1.0\"?><methodCall><methodName>\(method)</methodName><params>\(parameters)</params></methodCall>"
        let path = control.setting("path")?.string ?? "/"
        let response = try await ControllerHTTP(context: context, control: server).send(
            "POST",
            path,
            body: Array(body.utf8),
            contentType: "text/xml",
            timeout: .seconds(120)
        )
        guard response.status == 200, let root = XML.documents(String(decoding: response.body, as: UTF8.self))?.first
        else {
            throw ActionError(.other, "the Xen server answered \(response.status)")
        }
        guard let members = root.first("struct")?.children else {
            throw ActionError(.other, "the Xen server did not understand \(method)")
        }
        func member(_ name: String) -> XMLElement? {
            members.first { $0.child("name")?.text == name }?.child("value")
        }
        if Self.text(member("Status")) == "Success" { return .success(Self.text(member("Value"))) }
        let description = member("ErrorDescription")?.first("data")?.children.map { Self.text($0) } ?? []
        return .failure(Failure(code: description.first ?? "UNKNOWN", rest: Array(description.dropFirst())))
    }

    /// A value without a type is a text.
    private static func text(_ value: XMLElement?) -> String {
        guard let value else { return "" }
        return value.children.first?.text ?? value.text
    }
}
