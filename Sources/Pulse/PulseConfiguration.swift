// SPDX-License-Identifier: MPL-2.0

/// Where the broker is and who we are there.
///
/// As a URL: `amqp(s)://user:password@host:port/vhost?heartbeat=30&cacertfile=…&certfile=…&keyfile=…&verify=verify_none`,
/// each part percent-encoded, everything but the host optional.
public struct PulseConfiguration: Sendable {
    /// The name or address of the broker.
    public var host: String
    /// The port; 5672, or 5671 with TLS, unless told otherwise.
    public var port: Int
    /// The user name.
    public var user: String
    /// The password.
    public var password: String
    /// The virtual host.
    public var virtualHost: String
    /// How TLS is spoken; nil for a plain connection.
    public var tls: PulseTLS?
    /// The middle part of the names of our exchanges and queues; the user name unless told otherwise.
    public var namespace: String
    /// After how much silence either side asks whether the other is alive, in whole seconds.
    public var heartbeat: Duration = .seconds(30)
    /// How long resolving, connecting and logging in may take, each.
    public var connectTimeout: Duration = .seconds(10)
    /// The longest pause between two attempts to connect.
    public var maximumBackOff: Duration = .seconds(15)

    /// Creates a configuration from its parts.
    public init(
        host: String,
        port: Int? = nil,
        user: String,
        password: String,
        virtualHost: String = "/",
        tls: PulseTLS? = nil,
        namespace: String? = nil
    ) {
        self.host = host
        self.port = port ?? (tls == nil ? 5672 : 5671)
        self.user = user
        self.password = password
        self.virtualHost = virtualHost
        self.tls = tls
        self.namespace = namespace ?? user
    }

    /// Reads an AMQP URL.
    ///
    /// Without a user it is `guest` with password `guest`, without a path the virtual host is `/`.
    public init(url: String) throws(PulseError) {
        let parts = try AMQPURL(url)
        var tls = parts.isSecure ? PulseTLS() : nil
        if let file = parts.query["cacertfile"] { tls?.authorityFile = file }
        if let certificate = parts.query["certfile"], let key = parts.query["keyfile"] {
            tls?.identity = .init(certificateFile: certificate, keyFile: key)
        }
        if parts.query["verify"] == "verify_none" { tls?.verifiesPeer = false }
        self.init(
            host: parts.host,
            port: parts.port,
            user: parts.user ?? "guest",
            password: parts.password ?? "guest",
            virtualHost: parts.virtualHost ?? "/",
            tls: tls
        )
        if let text = parts.query["heartbeat"] {
            guard let seconds = Int(text), (1...3600).contains(seconds) else {
                throw PulseError(.invalidArgument, "AMQP URL: heartbeat must be 1 to 3600 seconds")
            }
            heartbeat = .seconds(seconds)
        }
    }
}

/// How a connection proves to the broker, and asks the broker to prove, who is speaking.
public struct PulseTLS: Sendable {
    /// A client certificate and its key, both PEM files.
    public struct Identity: Sendable {
        /// The file with the certificate chain.
        public var certificateFile: String
        /// The file with the private key.
        public var keyFile: String

        /// Creates an identity.
        public init(certificateFile: String, keyFile: String) {
            self.certificateFile = certificateFile
            self.keyFile = keyFile
        }
    }

    /// A PEM file of trusted authorities; nil for those the system trusts.
    public var authorityFile: String?
    /// The client certificate, where the broker asks for one.
    public var identity: Identity?
    /// Whether certificate and host name of the broker are checked.
    public var verifiesPeer = true

    /// Creates the default: trust what the system trusts, check everything.
    public init() {}
}

extension PulseConfiguration: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// The place and the user, without the password.
    public var description: String {
        "\(tls == nil ? "amqp" : "amqps")://\(user)@\(host):\(port) vhost \(virtualHost)"
    }

    /// The same as the description.
    public var debugDescription: String { description }

    /// Reveals no more than the description, so that dumping the value does not leak the password.
    public var customMirror: Mirror { Mirror(self, children: [("broker", description)]) }
}

/// An AMQP URL taken apart.
struct AMQPURL {
    var isSecure = false
    var user: String?
    var password: String?
    var host = "localhost"
    var port: Int?
    var virtualHost: String?
    var query: [String: String] = [:]

    init(_ text: String) throws(PulseError) {
        var rest = Substring(text)
        if rest.hasPrefix("amqps://") {
            isSecure = true
            rest = rest.dropFirst(8)
        } else if rest.hasPrefix("amqp://") {
            rest = rest.dropFirst(7)
        } else {
            throw PulseError(.invalidArgument, "AMQP URL: must begin with amqp:// or amqps://")
        }
        if let mark = rest.firstIndex(of: "?") {
            for pair in rest[rest.index(after: mark)...].split(separator: "&") {
                let halves = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                query[try Self.decoded(halves[0])] = try Self.decoded(halves.count > 1 ? halves[1] : "")
            }
            rest = rest[..<mark]
        }
        if let slash = rest.firstIndex(of: "/") {
            let path = rest[rest.index(after: slash)...]
            if path.contains("/") {
                throw PulseError(.invalidArgument, "AMQP URL: write / in the virtual host as %2F")
            }
            if !path.isEmpty { virtualHost = try Self.decoded(path) }
            rest = rest[..<slash]
        }
        if let at = rest.lastIndex(of: "@") {
            let halves = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            user = try Self.decoded(halves[0])
            if halves.count > 1 { password = try Self.decoded(halves[1]) }
            rest = rest[rest.index(after: at)...]
        }
        try readAuthority(rest)
    }

    private mutating func readAuthority(_ text: Substring) throws(PulseError) {
        var rest = text
        if rest.hasPrefix("["), let end = rest.firstIndex(of: "]") {
            host = String(rest[rest.index(after: rest.startIndex)..<end])
            rest = rest[rest.index(after: end)...]
        } else {
            let end = rest.firstIndex(of: ":") ?? rest.endIndex
            if end != rest.startIndex { host = try Self.decoded(rest[..<end]) }
            rest = rest[end...]
        }
        guard let colon = rest.first else { return }
        guard colon == ":", let number = Int(rest.dropFirst()), (1...65535).contains(number) else {
            throw PulseError(.invalidArgument, "AMQP URL: the port must be a number from 1 to 65535")
        }
        port = number
    }

    private static func decoded(_ text: Substring) throws(PulseError) -> String {
        var bytes: [UInt8] = []
        var iterator = text.utf8.makeIterator()
        while let byte = iterator.next() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = iterator.next().flatMap(hexDigit), let low = iterator.next().flatMap(hexDigit) else {
                throw PulseError(.invalidArgument, "AMQP URL: a % must be followed by two hexadecimal digits")
            }
            bytes.append(high << 4 | low)
        }
        guard let result = String(validating: bytes, as: UTF8.self) else {
            throw PulseError(.invalidArgument, "AMQP URL: percent-encoded text must be UTF-8")
        }
        return result
    }

    private static func hexDigit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
        default: nil
        }
    }
}
