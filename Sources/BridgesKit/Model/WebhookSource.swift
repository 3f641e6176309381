// SPDX-License-Identifier: MPL-2.0

/// Somebody who sends webhooks, and what may be expected of them.
struct WebhookSource: Sendable {
    /// Whose dialect the sender speaks.
    enum Kind: Sendable {
        /// GitHub; deliveries signed with SHA-1 only are accepted on request.
        case github(acceptsSHA1: Bool)
        /// Bitbucket Cloud and Data Center.
        case bitbucket
        /// GitLab, with its secret token or its signing token.
        case gitlab
        /// Whoever follows the Standard Webhooks specification.
        case standard
        /// Anybody who puts an authentication code of the body into a header.
        case hmac(Description)
    }

    /// How to read the deliveries of a sender without a dialect of its own.
    struct Description: Sendable {
        /// The hash function of the code.
        enum Algorithm: String, Sendable {
            case sha1, sha256, sha384, sha512
        }

        /// How the bytes of the code are spelled.
        enum Encoding: String, Sendable {
            case hex, base64
        }

        /// The header that holds the code.
        var header: String
        var algorithm: Algorithm
        var encoding: Encoding
        /// What stands before the code in the header.
        var prefix: String
        /// Where the name of the event is; without one every event is called `event`.
        var event: Selector?
        /// What tells a delivery from others.
        var identity: Identity
        /// The words of the routing key; the name of the event alone if there are none.
        var routingKey: [Selector]
    }

    /// What tells a delivery from others.
    enum Identity: Sendable {
        /// Nothing: each one is new.
        case none
        /// A value the sender chose.
        case value(Selector)
        /// The body: what is said twice is one event.
        case body
    }

    /// A place in a delivery.
    enum Selector: Sendable, Equatable {
        case header(String)
        /// A JSON pointer into the body.
        case pointer(String)
        case literal(String)
    }

    /// The name, which is the last part of the address and of the exchange.
    let name: String
    let kind: Kind
    /// Every one of them is accepted, so that keys can be replaced without a gap.
    let secrets: [Secret]
    /// The longest body in bytes.
    let bodyLimit: Int
    /// Deliveries a second in the long run.
    let rate: Double
    /// Deliveries at once after a quiet time.
    let burst: Int
    /// How deliveries that never arrived are found, if they are.
    var recovery: Recovery?

    /// Where GitHub lists what it sent, and the permission to see that and to ask for it again.
    struct Recovery: Sendable {
        /// The addresses of webhooks in GitHub's API, without a slash at the end.
        let hooks: [String]
        let token: Secret
        /// The pause between two looks at a list.
        let interval: Duration
    }
}
