// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import Glibc
import HTTPClient
import JSON
import Schedules
import Taskcluster

/// Where roller is and who asks; both come from the environment.
struct RollerSession {
    private let url: String
    private let target: Hawk.Target
    private let credentials: Hawk.Credentials?
    private let transport = CurlTransport()

    init() throws {
        guard let text = Self.variable("ROLLER_URL") else {
            throw Failure(usage: "ROLLER_URL is not set; export it, or source the env file that make up writes")
        }
        url = text.hasSuffix("/") ? String(text.dropLast()) : text
        guard let target = Hawk.Target(url: url) else {
            throw Failure(usage: "ROLLER_URL must begin with http:// or https://")
        }
        self.target = target
        let clientID = Self.variable("TASKCLUSTER_CLIENT_ID")
        let accessToken = Self.variable("TASKCLUSTER_ACCESS_TOKEN")
        guard (clientID == nil) == (accessToken == nil) else {
            throw Failure(usage: "export both TASKCLUSTER_CLIENT_ID and TASKCLUSTER_ACCESS_TOKEN, or neither")
        }
        if let clientID, let accessToken {
            credentials = Hawk.Credentials(
                clientID: clientID,
                accessToken: accessToken,
                certificate: Self.variable("TASKCLUSTER_CERTIFICATE")
            )
        } else {
            credentials = nil
        }
    }

    /// A variable of the environment; an empty one counts as absent.
    private static func variable(_ name: String) -> String? {
        guard let value = getenv(name), value[0] != 0 else { return nil }
        return String(cString: value)
    }

    /// An answer, whatever its status.
    struct Answer {
        let status: Int
        let body: [UInt8]

        var json: JSONValue { (try? JSONValue(parsing: body)) ?? .null }
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
        var resource = "/api/v1/" + path.map(Self.escaped).joined(separator: "/")
        if !query.isEmpty {
            resource += "?" + query.map { "\(Self.escaped($0.0))=\(Self.escaped($0.1))" }.joined(separator: "&")
        }
        let mayRepeat = method == "GET" || key != nil
        let policy = RetryPolicy(attempts: mayRepeat ? 4 : 1, base: .milliseconds(200), maximum: .seconds(2))
        return try await policy.run(isRetriable: { $0 is HTTPClientError }) {
            var headers: HTTPHeaders = ["Accept": "*/*"]
            if let body, !body.isEmpty { headers["Content-Type"] = contentType }
            if let key { headers["Idempotency-Key"] = key }
            if let credentials {
                headers["Authorization"] = Hawk.authorization(
                    for: method,
                    url: Hawk.Target(host: target.host, port: target.port, resource: resource),
                    credentials: credentials,
                    payload: body.map { (contentType, $0) },
                    now: .now()
                )
            }
            do {
                let response = try await transport.send(
                    HTTPRequest(
                        method: method,
                        url: url + resource,
                        headers: headers,
                        body: body.map { .bytes($0) } ?? .none,
                        timeout: timeout
                    )
                )
                return Answer(status: response.status, body: response.body)
            } catch {
                guard mayRepeat else { throw Failure("\(url) does not answer (\(error)); check ROLLER_URL") }
                throw error
            }
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
        let answer: Answer
        do {
            answer = try await send(method, path, query: query, body: body?.bytes(), key: key)
        } catch let error as HTTPClientError {
            throw Failure("\(url) does not answer (\(error)); check ROLLER_URL and that roller-api runs")
        }
        guard (200..<300).contains(answer.status) else { throw Self.failure(answer) }
        return answer.json
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
        return Failure("\(text ?? "roller answered") (\(answer.status))")
    }

    /// A piece of a path or query with everything escaped that is not plain.
    private static func escaped(_ text: String) -> String {
        var result = ""
        for byte in text.utf8 {
            let isPlain =
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
                || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || "-_.~".utf8.contains(byte)
            if isPlain {
                result.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                result += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }
        return result
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
