// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import RollerKit

/// HTTPS to a controller: the certificate is verified against the usual authorities, one of the controller, or a pin.
struct ControllerHTTP {
    let context: ActionContext
    let control: Control

    /// Where the controller is, without a path.
    func origin() throws(ActionError) -> String {
        guard let address = control.address else {
            throw ActionError(.config, "the controller \(control.name) has no address")
        }
        let scheme = control.setting("scheme")?.string ?? "https"
        guard scheme == "https" || (scheme == "http" && control.setting("allow_plain_http")?.bool == true) else {
            throw ActionError(.config, "the controller \(control.name) must be reached by https")
        }
        let host = HostName.inURL(try HostName.validated(address))
        return "\(scheme)://\(host)" + (control.port.map { ":\($0)" } ?? "")
    }

    /// Sends a request and answers whatever comes back.
    func send(
        _ method: String,
        _ path: String,
        headers: [(String, String)] = [],
        body: [UInt8]? = nil,
        contentType: String = "application/json",
        timeout: Duration = .seconds(30)
    ) async throws(ActionError) -> HTTPResponse {
        guard path.hasPrefix("/"), path.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f }) else {
            throw ActionError(.config, "a path at \(control.name) is not well formed")
        }
        var request = HTTPRequest(method: method, url: try origin() + path, timeout: timeout)
        for (name, value) in headers { request.headers.add(name, value) }
        if let body {
            request.body = .bytes(body)
            request.headers.add("Content-Type", contentType)
        }
        request.sink = .memory(limit: 4 << 20)
        request.proxy = ""
        request.certificateAuthorities = control.setting("ca_file")?.string
        request.pinnedKey = control.setting("pinned_key")?.string
        do {
            return try await context.transport.send(request)
        } catch {
            throw Self.failure(error)
        }
    }

    static func failure(_ error: HTTPClientError) -> ActionError {
        switch error.code {
        case .connect: ActionError(.unreachable, "the controller cannot be reached", isRetriable: true)
        case .timeout: ActionError(.timeout, "the controller did not answer in time", isRetriable: true)
        case .tls: ActionError(.tls, "the controller's certificate is not the expected one")
        case .aborted: ActionError(.unreachable, "the controller broke off the connection", outcome: .unverified)
        case .cancelled: ActionError(.canceled, "interrupted")
        default: ActionError(.other, "the controller's answer cannot be used (\(error.code.name))")
        }
    }

    /// The header for a user and password.
    static func basic(_ credential: Credential, _ control: Control) throws(ActionError) -> (String, String) {
        guard let user = credential.username, let password = credential.password else {
            throw ActionError(.config, "the credential of \(control.name) lacks user or password")
        }
        return ("Authorization", "Basic " + Base64.text(Array("\(user):\(password)".utf8)))
    }
}

/// Base64 with padding.
enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    static func text(_ bytes: [UInt8]) -> String {
        var result: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            var value = 0
            for byte in group { value = value << 8 | Int(byte) }
            value <<= 8 * (3 - group.count)
            for index in 0..<4 {
                let isPadding = index > group.count
                result.append(isPadding ? UInt8(ascii: "=") : alphabet[value >> (18 - 6 * index) & 63])
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}
