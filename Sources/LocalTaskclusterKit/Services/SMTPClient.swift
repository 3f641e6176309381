// SPDX-License-Identifier: MPL-2.0
import Core
import Glibc
import Taskcluster

/// A mail server that takes mail over plain SMTP, as the relay on the same machine or network does.
public struct MailRelay: Sendable, Hashable {
    /// The name or address of the server.
    public var host: String
    /// Its port.
    public var port: Int
    /// Whom to log in as, if it wants that.
    public var user: String?
    /// The password that goes with the user.
    public var password: String?

    /// Describes a server.
    public init(host: String, port: Int, user: String? = nil, password: String? = nil) {
        self.host = host
        self.port = port
        self.user = user
        self.password = password
    }
}

/// A conversation that went wrong.
struct SMTPFailure: Error, CustomStringConvertible {
    let description: String
    /// Whether the server will never take this mail.
    var isPermanent = false
}

/// Hands mail over to a relay, one after the other, on a thread of its own because sockets block.
actor SMTPClient {
    private let relay: MailRelay
    private let thread = SerialThread(name: "smtp")

    nonisolated var unownedExecutor: UnownedSerialExecutor { thread.asUnownedSerialExecutor() }

    init(relay: MailRelay) {
        self.relay = relay
    }

    /// Returns once the relay has taken the mail.
    func send(_ mail: MailText) throws(SMTPFailure) {
        var line = try SMTPLine(host: relay.host, port: relay.port)
        defer { line.hangUp() }
        try line.expect(220)
        try line.say("EHLO localhost", expecting: 250)
        if let user = relay.user {
            let secret = Base64.encoded(Array("\0\(user)\0\(relay.password ?? "")".utf8))
            try line.say("AUTH PLAIN \(secret)", expecting: 235)
        }
        try line.say("MAIL FROM:<\(mail.sender)>", expecting: 250)
        try line.say("RCPT TO:<\(mail.recipient)>", expecting: 250)
        try line.say("DATA", expecting: 354)
        // No line of base64 or of our header fields begins with a dot, so nothing needs stuffing.
        try line.say(mail.text + ".", expecting: 250)
        try line.say("QUIT", expecting: 221)
    }
}

/// A connection to a mail server.
private struct SMTPLine {
    private let descriptor: Int32
    private var received: [UInt8] = []

    init(host: String, port: Int) throws(SMTPFailure) {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(host, String(port), &hints, &found) == 0 else {
            throw SMTPFailure(description: "the mail server's name \(host) cannot be resolved")
        }
        defer { freeaddrinfo(found) }
        var next = found
        while let candidate = next {
            let address = candidate.pointee
            let descriptor = socket(address.ai_family, address.ai_socktype | Int32(SOCK_CLOEXEC.rawValue), 0)
            next = address.ai_next
            guard descriptor >= 0 else { continue }
            var limit = timeval(tv_sec: 20, tv_usec: 0)
            for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
                setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
            }
            if connect(descriptor, address.ai_addr, address.ai_addrlen) == 0 {
                self.descriptor = descriptor
                return
            }
            close(descriptor)
        }
        throw SMTPFailure(description: "the mail server \(host):\(port) cannot be reached")
    }

    func hangUp() {
        close(descriptor)
    }

    mutating func say(_ text: String, expecting code: Int) throws(SMTPFailure) {
        let bytes = Array((text + "\r\n").utf8)
        var done = 0
        while done < bytes.count {
            let sent = bytes.withUnsafeBytes {
                Glibc.send(
                    descriptor,
                    $0.baseAddress?.advanced(by: done),
                    bytes.count - done,
                    Int32(MSG_NOSIGNAL)
                )
            }
            if sent < 0, errno == EINTR { continue }
            guard sent > 0 else { throw SMTPFailure(description: "the mail server hung up") }
            done += sent
        }
        try expect(code)
    }

    /// Reads an answer, whose last line has a blank behind its code.
    mutating func expect(_ code: Int) throws(SMTPFailure) {
        while true {
            let line = try readLine()
            guard line.count < 4 || line[3] != UInt8(ascii: "-") else { continue }
            let text = String(decoding: line, as: UTF8.self)
            guard text.hasPrefix(String(code)) else {
                throw SMTPFailure(
                    description: "the mail server answered \(text.prefix(200))",
                    isPermanent: text.hasPrefix("5")
                )
            }
            return
        }
    }

    private mutating func readLine() throws(SMTPFailure) -> [UInt8] {
        while true {
            if let end = received.firstIndex(of: UInt8(ascii: "\n")) {
                let line = Array(received[..<end])
                received.removeFirst(end + 1)
                return line.last == UInt8(ascii: "\r") ? Array(line.dropLast()) : line
            }
            guard received.count < 65_536 else { throw SMTPFailure(description: "the mail server talks too much") }
            var buffer = [UInt8](repeating: 0, count: 4096)
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw SMTPFailure(description: "the mail server hung up or says nothing") }
            received += buffer[..<count]
        }
    }
}
