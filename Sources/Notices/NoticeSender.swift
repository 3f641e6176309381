// SPDX-License-Identifier: MPL-2.0

import Crypto
public import HTTPClient
import Core
import JSON
import Logging
public import TaskclusterClient

/// Sends notices: mail and chat through the notify service of the deployment, webhooks by themselves.
public struct NoticeSender: Sendable {
    /// How webhooks are signed.
    public struct Signing: Sendable {
        /// The key, shared with those who are told; without one there is no signature.
        public var secret: String?
        /// The field with the signature, `sha256=` and the HMAC of the body.
        public var signatureField: String
        /// The field with a name that stays the same on retries.
        public var deliveryField: String

        /// Describes how webhooks are signed.
        public init(secret: String?, signatureField: String, deliveryField: String) {
            self.secret = secret
            self.signatureField = signatureField
            self.deliveryField = deliveryField
        }
    }

    private let client: TaskclusterClient
    private let transport: any HTTPTransport
    private let signing: Signing?
    private let mailTemplate: String?

    /// Sends through a deployment's notify service, in its usual template if none is named; without a way to sign, no
    /// webhook is sent.
    public init(
        client: TaskclusterClient,
        transport: any HTTPTransport,
        signing: Signing?,
        mailTemplate: String? = nil
    ) {
        self.client = client
        self.transport = transport
        self.signing = signing
        self.mailTemplate = mailTemplate
    }

    /// Why a webhook was not delivered.
    struct Refused: Error, CustomStringConvertible {
        let description: String
    }

    /// Sends a notice; throws if nobody has it.
    public func send(_ notice: Notice) async throws {
        switch notice.channel {
        case .email:
            try await client.notify.email(
                to: notice.target,
                subject: notice.subject,
                content: notice.text,
                link: notice.link.map { (text: $0.text, href: $0.url) },
                template: mailTemplate
            )
        case .matrix:
            try await call("matrix", ["roomId": .string(notice.target), "body": .string(notice.text)])
        case .slack:
            try await call("slack", ["channelId": .string(notice.target), "text": .string(notice.text)])
        case .webhook:
            try await post(notice)
        case .log:
            Logger.current.notice("notice", metadata: ["text": "\(notice.text)", "key": "\(notice.key)"])
        case .bus:
            break
        }
    }

    private func call(_ method: String, _ body: JSONValue) async throws {
        _ = try await client.call("notify", "POST", [method], body: body)
    }

    private func post(_ notice: Notice) async throws {
        guard let signing else { throw Refused(description: "there is no secret to sign webhooks with") }
        let body = notice.document.bytes()
        var headers: HTTPHeaders = ["Content-Type": "application/json"]
        if let secret = signing.secret {
            let code = HMAC<SHA256>.authenticationCode(for: body, using: SymmetricKey(data: Array(secret.utf8)))
            headers[signing.signatureField] = "sha256=\(Self.hexadecimal(code))"
        }
        headers[signing.deliveryField] = Self.hexadecimal(SHA256.hash(data: Array(notice.key.utf8)))
        let response = try await transport.send(
            HTTPRequest(method: "POST", url: notice.target, headers: headers, body: .bytes(body))
        )
        guard (200..<300).contains(response.status) else {
            throw Refused(description: "the webhook answered \(response.status)")
        }
    }

    private static func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
        bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }
}
