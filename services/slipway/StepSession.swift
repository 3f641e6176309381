// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON

/// A step service, whose refusals are problem documents.
struct StepSession {
    private let service: ServiceSession

    /// Reads the address from a variable such as `SHIPIT_PIPELINE_URL`.
    init(_ variable: String) throws {
        service = try ServiceSession(variable)
    }

    /// Sends a request whose answer has to be good; with a person's token instead of credentials if one is given.
    func call(
        _ method: String,
        _ path: [String],
        query: [(String, String)] = [],
        body: JSONValue? = nil,
        token: String? = nil,
        headers: HTTPHeaders = [:],
        timeout: Duration = .seconds(60)
    ) async throws -> (status: Int, json: JSONValue, tag: String?) {
        var request = ServiceSession.Request(method: method, path: path, query: query, headers: headers)
        request.body = body?.bytes()
        request.token = token
        request.timeout = timeout
        let answer = try await service.send(request)
        guard answer.isGood || answer.status == 304 else { throw Self.failure(answer.status, answer.json) }
        return (answer.status, answer.json, answer.tag)
    }

    /// The bytes of what is no JSON, such as a picture.
    func bytes(_ path: [String], query: [(String, String)]) async throws -> [UInt8] {
        let answer = try await service.send(ServiceSession.Request(method: "GET", path: path, query: query))
        guard answer.isGood else { throw Self.failure(answer.status, answer.json) }
        return answer.body
    }

    /// Every row of a list that comes in pages.
    func all(_ path: [String], query: [(String, String)] = [], list: String) async throws -> [JSONValue] {
        var rows: [JSONValue] = []
        var token: String?
        repeat {
            let page = [("limit", "500")] + (token.map { [("continuationToken", $0)] } ?? [])
            let answer = try await call("GET", path, query: query + page).json
            rows += answer[list]?.array ?? []
            token = answer["continuationToken"]?.string
        } while token != nil
        return rows
    }

    /// What a refusal means for the person who asked.
    private static func failure(_ status: Int, _ json: JSONValue) -> Failure {
        var text = json["detail"]?.string ?? "no reason was given"
        let errors = json["errors"]?.array?.compactMap { $0["message"]?.string ?? $0.string } ?? []
        if errors.count > 1 {
            // The first of them stand behind a colon, too.
            if let first = errors.first, text.contains(": \(first)") { text = String(text.prefix { $0 != ":" }) + ":" }
            text += errors.map { "\n  \($0)" }.joined()
        }
        switch status {
        case 401: return Failure("the credentials were refused (\(text)); check who you are")
        case 403: return Failure("not allowed: \(text)")
        case 404: return Failure("not found: \(text)")
        case 400, 422: return Failure(text)
        default:
            var failure = Failure("refused with \(status) \(json["code"]?.string ?? ""): \(text)")
            failure.isPassing = [429, 502, 503, 504].contains(status)
            return failure
        }
    }

    /// Prints how a step stands.
    func show(
        _ uid: String,
        _ output: OutputOptions,
        token: String? = nil,
        _ text: (JSONValue) -> String
    ) async throws {
        let status = try await call("GET", [uid, "status"], token: token).json
        output.print(status, text: text(status))
    }

    /// Prints a list of steps, each as a row.
    static func list(
        _ answer: JSONValue,
        _ output: OutputOptions,
        nothing: String,
        _ row: (_ step: JSONValue, _ info: JSONValue) -> [String]
    ) {
        let rows = (answer["steps"]?.array ?? []).map { row($0, $0["info"] ?? [:]) }
        output.print(answer, text: Columns.text(rows, nothing: nothing))
    }
}
