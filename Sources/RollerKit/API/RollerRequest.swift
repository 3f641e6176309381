// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Schedules
import Synchronization

/// A request as the handlers of roller see it: pieces decoded once, the last of repeated options.
struct RollerRequest: Sendable {
    let raw: RawRequest
    let query: [String: String]
    /// The address of the caller, or what a trusted proxy says it is.
    let sourceAddress: String?
    let id: String
    let time: Timestamp
    private let content = BodyCache()

    init(raw: RawRequest, query: [String: String], sourceAddress: String?) {
        self.raw = raw
        self.query = query
        self.sourceAddress = sourceAddress
        id = JobID.make()
        time = .now()
    }

    var method: String { raw.method }

    /// An option, nil if it is absent or empty.
    func option(_ name: String) -> String? {
        query[name].flatMap { $0.isEmpty ? nil : $0 }
    }

    /// Whether an option says yes.
    func flag(_ name: String) -> Bool {
        ["1", "true", "yes", "on"].contains(query[name]?.lowercased() ?? "")
    }

    /// The whole body, up to a limit; it is read when it is first asked for.
    func body(limit: Int) async throws -> [UInt8] {
        if let known = content.bytes { return known }
        var bytes: [UInt8] = []
        for try await piece in raw.body {
            bytes += piece
            guard bytes.count <= limit else {
                throw Refusal(413, ["detail": .string("The body is longer than \(limit) bytes.")])
            }
        }
        content.keep(bytes)
        return bytes
    }

    /// The body as JSON.
    func json(limit: Int = 1 << 20) async throws -> JSONValue {
        let bytes = try await body(limit: limit)
        let value: JSONValue
        do {
            value = try JSONValue(parsing: bytes)
        } catch {
            throw Refusal.detail(400, "JSON parse error - \(error)")
        }
        guard !value.holdsZero else { throw Refusal.detail(400, "Texts must not hold the character U+0000.") }
        return value
    }

    /// Decodes the query; nil if it holds a broken escape or a zero.
    static func query(_ text: Substring?) -> [String: String]? {
        var options: [String: String] = [:]
        for piece in (text ?? "").split(separator: "&") {
            let parts = piece.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = parts.first.flatMap(RawRequest.decoded(query:)),
                let value = parts.count > 1 ? RawRequest.decoded(query: parts[1]) : ""
            else { return nil }
            guard !value.utf8.contains(0) else { return nil }
            options[name] = value
        }
        return options
    }
}

extension JSONValue {
    /// Whether a text in it holds U+0000, which the database cannot store.
    var holdsZero: Bool {
        switch self {
        case .string(let text): text.utf8.contains(0)
        case .array(let elements): elements.contains(where: \.holdsZero)
        case .object(let members): members.contains { $0.key.utf8.contains(0) || $0.value.holdsZero }
        case .null, .bool, .number: false
        }
    }
}

/// A body that was read already.
private final class BodyCache: Sendable {
    private let state = Mutex<[UInt8]?>(nil)

    var bytes: [UInt8]? { state.withLock { $0 } }

    func keep(_ bytes: [UInt8]) {
        state.withLock { $0 = bytes }
    }
}

/// An answer that refuses a request.
struct Refusal: Error, Sendable {
    let status: Int
    let body: JSONValue
    var headers: [(name: String, value: String)] = []

    init(_ status: Int, _ body: JSONValue, headers: [(name: String, value: String)] = []) {
        self.status = status
        self.body = body
        self.headers = headers
    }

    /// A refusal whose body is `{"detail": …}`.
    static func detail(_ status: Int, _ text: String) -> Refusal { Refusal(status, ["detail": .string(text)]) }

    static let notFound = Refusal.detail(404, "Not found.")
}

/// Who asks, once that is known.
struct Caller: Sendable {
    let clientID: String
    let scopes: [String]
}

/// The names that paths and queries may hold.
enum Names {
    /// Letters, digits, `-` and `_`, 1 to 128 of them.
    static func isWorkerWord(_ text: String) -> Bool {
        (1...128).contains(text.utf8.count)
            && text.utf8.allSatisfy { isAlphanumeric($0) || $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "_") }
    }

    /// The name or id of something in the inventory.
    static func isInventoryName(_ text: String) -> Bool {
        guard let first = text.utf8.first, (1...255).contains(text.utf8.count) else { return false }
        return isAlphanumeric(first) && text.utf8.allSatisfy { isAlphanumeric($0) || "-_.:".utf8.contains($0) }
    }

    static func isAlphanumeric(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
            || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }
}
