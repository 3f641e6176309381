// SPDX-License-Identifier: MPL-2.0
import JSON
public import Schedules
import Taskcluster

/// A mail as it travels: header fields and an encoded body.
public struct MailText: Sendable, Hashable {
    /// The sender of the envelope.
    public let sender: String
    /// The recipient of the envelope.
    public let recipient: String
    /// The lines, each ended by CR LF.
    public let text: String

    /// Writes the mail a notification asks for.
    public init(_ notification: Notification, id: Int, from sender: String, now: Timestamp) {
        let body = notification.body
        self.sender = Self.plain(sender)
        recipient = Self.plain(notification.address)
        var content = body["content"]?.string ?? ""
        if let link = body["link"], let text = link["text"]?.string, let href = link["href"]?.string {
            content += "\n\n[\(text)](\(href))"
        }
        let domain = self.sender.split(separator: "@").last.map(String.init) ?? "localhost"
        var lines = [
            "From: \(self.sender)", "To: \(recipient)",
            "Subject: \(Self.header(body["subject"]?.string ?? ""))", "Date: \(Self.date(now))",
            "Message-ID: <notification-\(id)-\(now.milliseconds)@\(domain)>", "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: base64",
            "Auto-Submitted: auto-generated",
        ]
        if let replyTo = body["replyTo"]?.string { lines.append("Reply-To: \(Self.plain(replyTo))") }
        lines.append("")
        lines += Self.folded(Base64.encoded(Array(content.utf8)))
        text = lines.map { $0 + "\r\n" }.joined()
    }

    /// A text that cannot end the header line it is put into.
    private static func plain(_ text: String) -> String {
        String(decoding: text.utf8.filter { $0 >= 0x20 && $0 < 0x7f && $0 != UInt8(ascii: ",") }, as: UTF8.self)
    }

    /// A header value; anything but printable ASCII makes it an encoded word.
    private static func header(_ text: String) -> String {
        if text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7f }), !text.contains("=?") { return text }
        var words: [String] = []
        var word: [UInt8] = []
        for character in text {
            let bytes = Array(String(character == "\r\n" || character.isNewline ? " " : character).utf8)
            if word.count + bytes.count > 42 {
                words.append("=?utf-8?B?\(Base64.encoded(word))?=")
                word = []
            }
            word += bytes
        }
        if !word.isEmpty { words.append("=?utf-8?B?\(Base64.encoded(word))?=") }
        return words.joined(separator: "\r\n ")
    }

    private static func folded(_ text: String) -> [String] {
        let bytes = Array(text.utf8)
        return stride(from: 0, to: bytes.count, by: 76).map { start in
            String(decoding: bytes[start..<min(start + 76, bytes.count)], as: UTF8.self)
        }
    }

    /// Sat, 10 Feb 2024 12:34:56 +0000.
    private static func date(_ now: Timestamp) -> String {
        let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        let text = now.iso8601
        let date = text.prefix(10).split(separator: "-").map(String.init)
        // 1 January 1970 was a Thursday.
        let day = days[Int((now.milliseconds / 86_400_000) % 7)]
        guard date.count == 3, let month = Int(date[1]), (1...12).contains(month) else { return text }
        return "\(day), \(date[2]) \(months[month - 1]) \(date[0]) \(text.dropFirst(11).prefix(8)) +0000"
    }
}
