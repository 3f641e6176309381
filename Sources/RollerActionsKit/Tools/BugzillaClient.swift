// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Schedules

/// Talks to Bugzilla; the key travels in a header.
struct BugzillaClient {
    let settings: BugzillaSettings
    let transport: any HTTPTransport

    /// A bug as far as we care.
    struct Bug: Hashable {
        var id: Int
        var isOpen: Bool
    }

    /// The bug with an alias; nil when there is none.
    func bug(alias: String) async throws(ActionError) -> Bug? {
        let (status, body) = try await exchange("GET", "/rest/bug/\(Self.encoded(alias))", nil)
        if status == 404 || [100, 101].contains(body["code"]?.int ?? 0) { return nil }
        try Self.check(status, body)
        guard let bug = body["bugs"]?[0], let id = bug["id"]?.int else { return nil }
        return Bug(id: id, isOpen: bug["is_open"]?.bool ?? true)
    }

    /// The first open bug with these properties.
    func openBug(summary: String, product: String, component: String) async throws(ActionError) -> Bug? {
        let query = [("summary", summary), ("product", product), ("component", component), ("resolution", "---")]
        let text = query.map { "\($0)=\(Self.encoded($1))" }.joined(separator: "&")
        let (status, body) = try await exchange("GET", "/rest/bug?\(text)", nil)
        try Self.check(status, body)
        return body["bugs"]?[0]?["id"]?.int.map { Bug(id: $0, isOpen: true) }
    }

    /// Files a bug.
    func create(_ bug: JSONValue) async throws(ActionError) -> Int {
        let (status, body) = try await exchange("POST", "/rest/bug", bug)
        try Self.check(status, body)
        guard let id = body["id"]?.int else { throw ActionError(.other, "Bugzilla named no bug") }
        return id
    }

    /// Changes a bug.
    func update(_ id: Int, _ change: JSONValue) async throws(ActionError) {
        let (status, body) = try await exchange("PUT", "/rest/bug/\(id)", change)
        try Self.check(status, body)
    }

    /// When somebody with our key last commented with a text that begins like this one.
    func lastComment(on id: Int, beginning start: String) async throws(ActionError) -> Timestamp? {
        let (status, body) = try await exchange("GET", "/rest/bug/\(id)/comment", nil)
        try Self.check(status, body)
        let comments = body["bugs"]?["\(id)"]?["comments"]?.array ?? []
        return comments.filter { $0["text"]?.string?.hasPrefix(start) == true }
            .compactMap { $0["creation_time"]?.string.flatMap { Timestamp($0) } }.max()
    }

    /// The page of a bug.
    func page(of id: Int) -> String { "\(base)/show_bug.cgi?id=\(id)" }

    private var base: String { settings.url.hasSuffix("/") ? String(settings.url.dropLast()) : settings.url }

    private func exchange(_ method: String, _ path: String, _ body: JSONValue?) async throws(ActionError) -> (
        Int, JSONValue
    ) {
        var request = HTTPRequest(method: method, url: base + path)
        request.headers.add("X-BUGZILLA-API-KEY", settings.apiKey)
        request.headers.add("Accept", "application/json")
        if let body {
            request.headers.add("Content-Type", "application/json")
            request.body = .bytes(body.bytes())
        }
        do {
            let response = try await transport.send(request)
            return (response.status, (try? response.json()) ?? .null)
        } catch {
            throw ActionError(.unreachable, "Bugzilla does not answer (\(error.code.name))", isRetriable: true)
        }
    }

    private static func check(_ status: Int, _ body: JSONValue) throws(ActionError) {
        guard (200..<300).contains(status), body["error"]?.bool != true else {
            throw ActionError(
                .other,
                "Bugzilla refused with \(status)" + (body["code"]?.int.map { ", code \($0)" } ?? "")
            )
        }
    }

    /// A text as one part of a path or query.
    private static func encoded(_ text: String) -> String {
        var result = ""
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
                result.unicodeScalars.append(Unicode.Scalar(byte))
            default:
                result += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }
        return result
    }
}
