// SPDX-License-Identifier: MPL-2.0

import StepKit

/// Where people log in: the issuer's page, which leads back to one of our own.
public struct LoginPage: Sendable {
    private let issuer: String
    private let audience: String
    private let client: String
    private let callbacks: Set<String>

    /// Describes the page of an issuer, whose address ends with a slash, and the addresses it may lead back to.
    public init(issuer: String, audience: String, client: String, callbacks: Set<String>) {
        self.issuer = issuer
        self.audience = audience
        self.client = client
        self.callbacks = callbacks
    }

    /// The address of the page for a request.
    ///
    /// An address to come back to that is not exactly one of ours is refused: the code it would get is as good as a login.
    /// What protects the exchange of that code (`state`, `nonce`, `code_challenge`) is chosen by whoever begins it.
    func address(_ query: [String: String]) throws(StepProblem) -> String {
        guard let callback = query["callback_url"], callbacks.contains(callback) else {
            throw StepProblem.invalid("callback_url is not one of the addresses that logins lead back to")
        }
        var parameters = [
            ("response_type", "code"), ("client_id", client), ("redirect_uri", callback), ("audience", audience),
            ("scope", "openid email profile"),
        ]
        for name in ["state", "nonce", "code_challenge"] {
            guard let value = query[name] else { continue }
            guard value.utf8.allSatisfy(AddressText.isPlain), (1...256).contains(value.utf8.count) else {
                throw StepProblem.invalid("\(name) has to consist of letters, digits and - . _ ~")
            }
            parameters.append((name, value))
        }
        if query["code_challenge"] != nil { parameters.append(("code_challenge_method", "S256")) }
        return "\(issuer)authorize?" + parameters.map { "\($0.0)=\(AddressText.encoded($0.1))" }.joined(separator: "&")
    }
}

/// Text for addresses.
enum AddressText {
    /// Whether a byte stands for itself.
    static func isPlain(_ byte: UInt8) -> Bool {
        guard byte < 128 else { return false }
        let character = Character(UnicodeScalar(byte))
        return character.isLetter || character.isNumber || "-._~".utf8.contains(byte)
    }

    /// The text with everything else in its percent form.
    static func encoded(_ text: String) -> String {
        text.utf8.map { byte in
            isPlain(byte) ? String(UnicodeScalar(byte)) : "%" + Hexadecimal.encoded([byte]).uppercased()
        }.joined()
    }
}
