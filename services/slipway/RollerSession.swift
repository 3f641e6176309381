// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON
import Taskcluster

/// Roller, whose refusals are texts of its own.
struct RollerSession {
    typealias Answer = ServiceSession.Answer

    private let service: ServiceSession

    init() throws {
        service = try ServiceSession("ROLLER_URL")
    }

    /// Sends a request and answers with what came back; fails only if nothing did.
    ///
    /// A key makes a repetition of a request for a job recognisable; such requests, and those that only read, are
    /// repeated.
    func send(
        _ method: String,
        _ path: [String],
        query: [(String, String)] = [],
        body: [UInt8]? = nil,
        contentType: String = "application/json",
        key: String? = nil,
        timeout: Duration = .seconds(60)
    ) async throws -> Answer {
        var request = ServiceSession.Request(method: method, path: ["api", "v1"] + path, query: query)
        request.headers = ["Accept": "*/*"]
        if let key { request.headers["Idempotency-Key"] = key }
        request.body = body
        request.contentType = contentType
        request.timeout = timeout
        request.attempts = method == "GET" || key != nil ? 4 : 1
        do {
            return try await service.send(request)
        } catch let failure as Failure where !failure.isUsage {
            throw Failure(remote: failure.message)
        }
    }

    /// Sends a request whose answer has to be good.
    func call(
        _ method: String,
        _ path: [String],
        query: [(String, String)] = [],
        body: JSONValue? = nil,
        key: String? = nil
    ) async throws -> JSONValue {
        let answer = try await send(method, path, query: query, body: body?.bytes(), key: key)
        guard answer.isGood else { throw Self.failure(answer) }
        return answer.json
    }

    /// The options of a query that have a value.
    static func query(_ options: KeyValuePairs<String, String?>) -> [(String, String)] {
        options.compactMap { name, value in value.map { (name, $0) } }
    }

    /// Every row of a list that comes in pages, up to a limit.
    func all(_ path: [String], list: String, query: [(String, String)], limit: Int) async throws -> [JSONValue] {
        var rows: [JSONValue] = []
        var token: String?
        repeat {
            let size = min(limit - rows.count, 1000)
            let page = try await call(
                "GET",
                path,
                query: query + [("limit", String(size))] + (token.map { [("continuationToken", $0)] } ?? [])
            )
            rows += page[list]?.array ?? []
            token = page["continuationToken"]?.string
        } while token != nil && rows.count < limit
        return rows
    }

    /// What a refusal means for the person who asked.
    static func failure(_ answer: Answer) -> Failure {
        let json = answer.json
        var text = json["detail"]?.string ?? json.string
        if text == nil, let fields = json.object {
            text = fields.map { field, value in
                let messages = value.array?.compactMap(\.string).joined(separator: " ") ?? value.string ?? value.text()
                return "\(field): \(messages)"
            }.joined(separator: "; ")
        }
        let status: Int32 =
            switch answer.status {
            case 400, 413: 1
            case 404: 4
            case 405, 501: 3
            case 409: 5
            default: 2
            }
        return Failure("\(text ?? "roller answered") (\(answer.status))", status: status)
    }

    /// Has a worker look at a machine, and answers with the job when it is over.
    func look(_ task: String, at name: String) async throws -> JSONValue {
        let job = try await call("POST", ["workers", name, "jobs"], query: [("task_name", task)], key: Slugid.make())
        guard let id = job["task_id"]?.string else { throw Failure(remote: "roller answered without a job") }
        while true {
            let now = try await call("GET", ["jobs", id], query: [("wait", "20")])
            if JobCommand.isOver(now) { return now }
        }
    }
}

/// The word and exit status that Nagios and its kin understand.
enum Probe: Int32 {
    case ok = 0
    case warning = 1
    case critical = 2
    case unknown = 3

    /// Runs a probe; whatever keeps it from looking is unknown.
    static func run(_ body: () async throws -> (Probe, String)) async throws {
        let (probe, text): (Probe, String)
        do {
            (probe, text) = try await body()
        } catch let failure as Failure {
            (probe, text) = (.unknown, failure.message)
        }
        print("\(String(describing: probe).uppercased()): \(text)")
        if probe != .ok { throw ExitCode(probe.rawValue) }
    }
}
