// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import HTTPClient
import JSON
import Synchronization
import TestSupport

/// A stand-in for Phabricator that speaks Conduit's wire format over HTTP: forms in, results or error codes out.
final class ConduitServer: Sendable {
    static let token = "api-0123456789abcdefghijklmnopqr"

    struct State {
        var diffs: [Int: (revision: String?, type: String)] = [:]
        var revisions: [String: [String]] = [:]
        var users: [String: String] = [:]
        /// What to answer next instead: a status and a body.
        var refusals: [(status: Int, body: String)] = []
        var calls: [(method: String, parameters: JSONValue)] = []
    }

    let state = Mutex(State())

    var calls: [String] { state.withLock { $0.calls.map(\.method) } }

    /// Adds diffs, each with a revision of its own that everybody may see.
    func add(_ ids: ClosedRange<Int>, isVisible: Bool = true) {
        state.withLock { state in
            for id in ids {
                state.diffs[id] = ("PHID-DREV-\(id)", "DIFF")
                if isVisible { state.revisions["PHID-DREV-\(id)"] = [] }
            }
        }
    }

    func show(_ id: Int, reviewers: [String] = []) {
        state.withLock { $0.revisions["PHID-DREV-\(id)"] = reviewers }
    }

    func refuse(_ status: Int, _ body: String = "", times: Int = 1) {
        state.withLock { $0.refusals += Array(repeating: (status, body), count: times) }
    }

    /// Serves while a body runs, which gets the address.
    func serve<R: Sendable>(_ body: (String) async throws -> R) async throws -> R {
        let route = RawRoute(.post, prefix: "/api/", name: "conduit") { request in
            var bytes: [UInt8] = []
            for try await piece in request.body { bytes += piece }
            return self.answer(request.rest, bytes)
        }
        let server = HTTPServer(
            configuration: HTTPServerConfiguration(),
            name: "conduit",
            rootURL: nil,
            apis: [],
            authenticator: nil,
            health: HealthRegistry(),
            raw: [route]
        )
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await server.run() }
            defer { group.cancelAll() }
            return try await body("http://127.0.0.1:\(await server.waitUntilListening())")
        }
    }

    private func answer(_ method: String, _ body: [UInt8]) -> RawResponse {
        let fields = String(decoding: body, as: UTF8.self).split(separator: "&")
        let encoded = fields.first { $0.hasPrefix("params=") }?.dropFirst(7) ?? ""
        guard var parameters = RawRequest.decoded(query: encoded).flatMap({ try? JSONValue(parsing: $0) }) else {
            return Self.failure("ERR-CONDUIT-CORE", "could not decode JSON serialization")
        }
        guard let shown = parameters["__conduit__"]?["token"]?.string, shown == Self.token else {
            let text = parameters["__conduit__"]?["token"]?.string ?? ""
            return Self.failure("ERR-INVALID-AUTH", "API token \"\(text)\" is not valid.")
        }
        parameters["__conduit__"] = nil
        return state.withLock { state in
            state.calls.append((method, parameters))
            if !state.refusals.isEmpty {
                let (status, body) = state.refusals.removeFirst()
                return RawResponse(status: status, body: .bytes(Array(body.utf8)))
            }
            switch method {
            case "differential.diff.search": return Self.diffs(parameters, state)
            case "differential.revision.search": return Self.revisions(parameters, state)
            case "user.search": return Self.users(parameters, state)
            default: return Self.failure("ERR-CONDUIT-CORE", "Conduit API method \"\(method)\" does not exist.")
            }
        }
    }

    private static func diffs(_ parameters: JSONValue, _ state: State) -> RawResponse {
        let limit = parameters["limit"]?.int ?? 100
        var ids = state.diffs.keys.sorted()
        if let wanted = parameters["constraints"]?["ids"]?.array?.compactMap(\.int) {
            ids = ids.filter(wanted.contains)
        }
        if parameters["order"]?.string == "newest" { ids.reverse() }
        if let after = parameters["after"]?.string.flatMap({ Int($0) }) { ids = ids.filter { $0 > after } }
        let page = ids.prefix(limit)
        let data = page.map { id -> JSONValue in
            let diff = state.diffs[id]
            return [
                "id": JSONValue(id), "type": .string(diff?.type ?? "DIFF"), "phid": .string("PHID-DIFF-\(id)"),
                "fields": ["revisionPHID": diff?.revision.map { .string($0) } ?? .null], "attachments": [:],
            ]
        }
        return success(data, after: ids.count > limit ? page.last : nil, limit)
    }

    private static func revisions(_ parameters: JSONValue, _ state: State) -> RawResponse {
        let wanted = parameters["constraints"]?["phids"]?.array?.compactMap(\.string) ?? []
        let data = wanted.compactMap { phid -> JSONValue? in
            guard let reviewers = state.revisions[phid] else { return nil }
            let list = reviewers.map { ["reviewerPHID": JSONValue($0), "status": "added"] as JSONValue }
            return [
                "id": 1, "type": "DREV", "phid": .string(phid), "fields": [:],
                "attachments": ["reviewers": ["reviewers": .array(list)]],
            ]
        }
        return success(data, after: nil, 100)
    }

    private static func users(_ parameters: JSONValue, _ state: State) -> RawResponse {
        let wanted = parameters["constraints"]?["phids"]?.array?.compactMap(\.string) ?? []
        let data = wanted.compactMap { phid -> JSONValue? in
            state.users[phid].map { ["phid": .string(phid), "type": "USER", "fields": ["username": .string($0)]] }
        }
        return success(data, after: nil, 100)
    }

    private static func success(_ data: [JSONValue], after: Int?, _ limit: Int) -> RawResponse {
        let cursor: JSONValue = [
            "limit": JSONValue(limit), "after": after.map { .string(String($0)) } ?? .null, "before": nil,
        ]
        return json(["result": ["data": .array(data), "cursor": cursor], "error_code": nil, "error_info": nil])
    }

    private static func failure(_ code: String, _ info: String) -> RawResponse {
        json(["result": nil, "error_code": .string(code), "error_info": .string(info)])
    }

    private static func json(_ value: JSONValue) -> RawResponse {
        RawResponse(
            status: 200,
            headers: [(name: "Content-Type", value: "application/json")],
            body: .bytes(value.bytes())
        )
    }
}
