// SPDX-License-Identifier: MPL-2.0

import Core
package import HTTPClient
import Schedules
import Taskcluster

/// Sends letters through a mail server.
package struct SMTPSender: LetterSender {
    let transport: CurlTransport
    let server: MailServer
    /// The address that letters come from.
    let from: String

    package init(transport: CurlTransport, server: MailServer, from: String) {
        self.transport = transport
        self.server = server
        self.from = from
    }

    package func send(_ letter: Letter) async throws(LetterError) {
        let message = MailMessage(
            sender: from,
            recipients: [letter.address],
            contents: Array(MailText.message(letter, from: from).utf8)
        )
        let reply: Int
        do {
            reply = try await transport.send(message, to: server)
        } catch {
            throw LetterError(description: error.message, isTransient: error.code != .invalidURL)
        }
        guard (200..<300).contains(reply) else {
            throw LetterError(description: "the mail server answered \(reply)", isTransient: reply < 500)
        }
    }
}

/// The form in which letters travel.
enum MailText {
    /// A message of plain text in UTF-8; it depends on the letter alone, its id and date included.
    static func message(_ letter: Letter, from: String) -> String {
        var text = "From: Hooks <\(from)>\r\nTo: <\(letter.address)>\r\nSubject: \(header(letter.subject))\r\n"
        text += "Date: \(date(letter.date))\r\nMessage-ID: <\(letter.id)@\(domain(of: from))>\r\n"
        text += "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n"
        text += "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        return text + rows(Base64.encoded(Array(letter.text.utf8)))
    }

    private static func domain(of address: String) -> String {
        guard let last = address.split(separator: "@").last else { return "localhost" }
        return String(last)
    }

    /// A text of ASCII characters in lines of at most 76.
    private static func rows(_ text: String) -> String {
        var rows = ""
        var rest = text[...]
        while !rest.isEmpty {
            rows += rest.prefix(76)
            rows += "\r\n"
            rest = rest.dropFirst(76)
        }
        return rows
    }

    /// The text of a header: no line breaks, not too long for one line, and encoded if it is not plain ASCII.
    static func header(_ text: String) -> String {
        let short = text.count > 250 ? text.prefix(250) + "…" : text[...]
        guard short.utf8.allSatisfy({ (0x20...0x7E).contains($0) }) else {
            // An encoded word holds 45 bytes; characters are not divided.
            var words: [[UInt8]] = [[]]
            for character in short {
                let bytes = Array(String(character).utf8)
                if words[words.count - 1].count + bytes.count > 45 { words.append([]) }
                words[words.count - 1] += bytes
            }
            return words.map { "=?utf-8?B?\(Base64.encoded($0))?=" }.joined(separator: "\r\n ")
        }
        return String(short)
    }

    private static let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
    private static let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]

    /// A date as mail writes it: `Sat, 10 Feb 2024 12:34:56 +0000`.
    static func date(_ instant: Timestamp) -> String {
        let text = instant.iso8601
        let parts = text.split { "-T.".contains($0) }.map(String.init)
        guard parts.count == 5, let month = Int(parts[1]), (1...12).contains(month) else { return text }
        let day = Int((instant.milliseconds / 86_400_000) % 7)
        let weekday = weekdays[(day + 7) % 7]
        return "\(weekday), \(parts[2]) \(months[month - 1]) \(parts[0]) \(parts[3]) +0000"
    }
}
