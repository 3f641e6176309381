// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import Synchronization

/// A mail server on this machine that keeps what it is given, and refuses on demand.
final class MailSink: Sendable {
    struct State {
        var recipients: [String] = []
        var messages: [String] = []
        /// What to answer the next recipients with, instead of agreeing.
        var refusals: [String] = []
    }

    let state = Mutex(State())
    let port: Int
    private let listener: Int32

    var messages: [String] { state.withLock { $0.messages } }
    var url: String { "smtp://127.0.0.1:\(port)" }

    init() {
        listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let descriptor = listener
        withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                precondition(bind(descriptor, pointer, length) == 0 && listen(descriptor, 8) == 0)
                precondition(getsockname(descriptor, pointer, &length) == 0)
            }
        }
        port = Int(UInt16(bigEndian: address.sin_port))
        startThread(named: "mail-sink") { [self] in
            while true {
                let client = accept(descriptor, nil, nil)
                // Closed here alone: its number may be another socket's as soon as it is.
                guard client >= 0 else {
                    close(descriptor)
                    return
                }
                converse(client)
                close(client)
            }
        }
    }

    /// Ends the thread.
    func stop() {
        Glibc.shutdown(listener, Int32(SHUT_RDWR))
    }

    private func converse(_ client: Int32) {
        var lines = Lines(descriptor: client)
        func say(_ text: String) {
            let bytes = Array((text + "\r\n").utf8)
            _ = write(client, bytes, bytes.count)
        }
        say("220 sink")
        while let line = lines.next() {
            switch line.prefix(4).uppercased() {
            case "EHLO": say("250 sink")
            case "MAIL": say("250 go on")
            case "RCPT":
                let refusal = state.withLock { state -> String? in
                    guard state.refusals.isEmpty else { return state.refusals.removeFirst() }
                    state.recipients.append(line)
                    return nil
                }
                say(refusal ?? "250 known")
            case "DATA":
                say("354 speak")
                var message = ""
                while let part = lines.next(), part != "." { message += part + "\n" }
                let text = message
                state.withLock { $0.messages.append(text) }
                say("250 kept")
            case "QUIT": return say("221 bye")
            default: say("502 what?")
            }
        }
    }

    /// Lines of a connection.
    private struct Lines {
        let descriptor: Int32
        var buffer: [UInt8] = []

        mutating func next() -> String? {
            while true {
                if let end = buffer.firstIndex(of: 0x0A) {
                    let line = buffer[..<end].filter { $0 != 0x0D }
                    buffer.removeFirst(end + 1)
                    return String(decoding: line, as: UTF8.self)
                }
                var chunk = [UInt8](repeating: 0, count: 4096)
                let count = read(descriptor, &chunk, chunk.count)
                guard count > 0 else { return nil }
                buffer += chunk[..<count]
            }
        }
    }
}
