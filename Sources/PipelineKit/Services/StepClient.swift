// SPDX-License-Identifier: MPL-2.0

public import HTTPClient
import JSON
import Schedules
import StepKit
public import Taskcluster

/// Makes the calls of pipelines to step services, and tells what came of them; nothing is thrown.
///
/// Answers that send elsewhere are never followed: the credentials are for the service that was named.
public struct StepClient: Sendable {
    private let transport: any HTTPTransport
    private let credentials: Hawk.Credentials?
    private let timeout: Duration
    private let gate = HostGate(limit: callLimit)

    /// How many calls are made at a time.
    public static let callLimit = 64

    /// Calls step services with credentials of Taskcluster's kind; a call whose answer is not there in time has failed.
    public init(
        transport: any HTTPTransport,
        credentials: Hawk.Credentials?,
        timeout: Duration = .seconds(20)
    ) {
        self.transport = transport
        self.credentials = credentials
        self.timeout = timeout
    }

    /// Makes the call of an effect on behalf of a pipeline.
    func perform(_ effect: Effect, for pipeline: Step) async -> Observation {
        let host = String(effect.apiURL.split(separator: "/").dropFirst().first ?? "")
        let result: Observation.Result? = await gate.call(host) { await self.result(of: effect, pipeline) }
        return effect.observation(result ?? .unreachable("the service is slow to answer others", retryAfter: nil))
    }

    private func result(of effect: Effect, _ pipeline: Step) async -> Observation.Result {
        switch effect.kind {
        case .start(let body): await start(effect, body, pipeline)
        case .poll: await poll(effect, pipeline)
        case .stop: await stop(effect, pipeline)
        }
    }

    // MARK: - The three calls

    private func start(_ effect: Effect, _ body: JSONObject, _ pipeline: Step) async -> Observation.Result {
        switch await send("PUT", effect, "", .object(body), pipeline) {
        case .failure(let error):
            return Self.unreachable(error)
        case .success(let response):
            switch response.status {
            case 200..<300: return .accepted
            case 300..<400: return .refused("the service answered with a redirect, which is not followed")
            case 409: return await adopt(effect, body, response, pipeline)
            case let status where Self.isPassing(status): return Self.unreachable(response)
            default: return .refused("the service answered \(response.status): \(Self.excerpt(response))")
            }
        }
    }

    /// A step of that name exists: it is ours if it was asked for the same.
    private func adopt(
        _ effect: Effect,
        _ body: JSONObject,
        _ refusal: HTTPResponse,
        _ pipeline: Step
    ) async -> Observation.Result {
        // The older services show definitions at the steps themselves.
        for path in ["/definition", ""] {
            switch await send("GET", effect, path, nil, pipeline) {
            case .failure(let error) where error.code != .tooLarge:
                return Self.unreachable(error)
            case .success(let response) where Self.isPassing(response.status):
                return Self.unreachable(response)
            case .success(let response) where [404, 405].contains(response.status):
                continue
            case .success(let response) where Self.isSame(response, body):
                return .accepted
            case .success, .failure:
                break
            }
            break
        }
        return .refused("the service answered 409: \(Self.excerpt(refusal))")
    }

    /// Whether a service shows what was asked for; an answer that cannot be read is something else.
    private static func isSame(_ response: HTTPResponse, _ body: JSONObject) -> Bool {
        guard response.status == 200, let definition = (try? response.json())?.object else { return false }
        return body.allSatisfy { member in
            member.key == "uid"
                || definition[member.key].map { CanonicalJSON.bytes($0) == CanonicalJSON.bytes(member.value) } == true
        }
    }

    private func poll(_ effect: Effect, _ pipeline: Step) async -> Observation.Result {
        switch await send("GET", effect, "/status", nil, pipeline) {
        case .failure(let error) where error.code == .tooLarge:
            return .status(.garbage("the answer is too long"))
        case .failure(let error):
            return Self.unreachable(error)
        case .success(let response):
            switch response.status {
            case 200..<300: return .status(RemoteStatus(response.body, uid: effect.remoteUID))
            case 300..<400: return .refused("the service answered with a redirect, which is not followed")
            case 404, 410: return .unknown
            default: return Self.unreachable(response)
            }
        }
    }

    private func stop(_ effect: Effect, _ pipeline: Step) async -> Observation.Result {
        switch await send("POST", effect, "/cancel", ["reason": "cancelled by its pipeline"], pipeline) {
        case .failure(let error):
            return Self.unreachable(error)
        case .success(let response):
            switch response.status {
            case 200..<300:
                let status = RemoteStatus(response.body, uid: effect.remoteUID)
                if case .known(let state, _, _, _, _) = status, state.isTerminal { return .status(status) }
                return .stopped
            // It has ended in the meantime; the next question tells how.
            case 409: return .stopped
            case 404, 405: return await delete(effect, pipeline)
            default: return Self.unreachable(response)
            }
        }
    }

    /// The older services know no cancelling; deleting a step is what they have.
    private func delete(_ effect: Effect, _ pipeline: Step) async -> Observation.Result {
        switch await send("DELETE", effect, "", nil, pipeline) {
        case .failure(let error):
            return Self.unreachable(error)
        case .success(let response):
            switch response.status {
            case 200..<300: return .status(.known(state: .cancelled, message: "deleted", output: [:], info: [:]))
            case 404, 410: return .unknown
            case 409: return .stopped
            default: return Self.unreachable(response)
            }
        }
    }

    // MARK: - One call

    private func send(
        _ method: String,
        _ effect: Effect,
        _ path: String,
        _ body: JSONValue?,
        _ pipeline: Step
    ) async -> Result<HTTPResponse, HTTPClientError> {
        let url = "\(effect.apiURL)/\(effect.remoteUID)\(path)"
        var request = HTTPRequest(method: method, url: url, headers: ["Accept": "application/json"])
        request.timeout = timeout
        request.connectTimeout = min(.seconds(5), timeout)
        request.sink = .memory(limit: 1 << 20)
        let bytes = body?.bytes()
        if let bytes {
            request.body = .bytes(bytes)
            request.headers["Content-Type"] = "application/json"
        }
        request.headers["X-Shipit-Pipeline"] = pipeline.uid
        request.headers["X-Shipit-Attempt"] = String(effect.attempt)
        request.headers["X-Shipit-Requester"] = Self.plain(pipeline.requester ?? pipeline.createdBy)
        request.headers["X-Shipit-Depth"] = String(pipeline.depth + 1)
        request.headers["X-Shipit-Ancestors"] = (pipeline.ancestors + [pipeline.uid]).joined(separator: ",")
        if let credentials, let target = Hawk.Target(url: url) {
            request.headers["Authorization"] = Hawk.authorization(
                for: method,
                url: target,
                credentials: credentials,
                authorizedScopes: nil,
                payload: bytes.map { (contentType: "application/json", body: $0) },
                now: .now()
            )
        }
        do {
            return .success(try await transport.send(request))
        } catch {
            return .failure(error)
        }
    }

    /// A name as the value of a header field.
    private static func plain(_ name: String) -> String {
        String(decoding: name.utf8.map { (0x21...0x7e).contains($0) ? $0 : UInt8(ascii: "?") }, as: UTF8.self)
    }

    /// Whether an answer is about the moment rather than about the request.
    private static func isPassing(_ status: Int) -> Bool {
        [401, 403, 408, 425, 429].contains(status) || status >= 500
    }

    private static func unreachable(_ error: HTTPClientError) -> Observation.Result {
        .unreachable("the service cannot be reached: \(error.code.name)", retryAfter: nil)
    }

    private static func unreachable(_ response: HTTPResponse) -> Observation.Result {
        let pause = response.headers["Retry-After"].flatMap { Int($0) }.map { Duration.seconds(min(max($0, 0), 300)) }
        return .unreachable("the service answered \(response.status)", retryAfter: pause)
    }

    private static func excerpt(_ response: HTTPResponse) -> String {
        String(decoding: response.body.prefix(2048), as: UTF8.self)
    }
}
