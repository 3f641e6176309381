// SPDX-License-Identifier: MPL-2.0

import CoreMetrics
import Logging
import Schedules
import Synchronization
import Taskcluster

/// The counter and histogram of one API method, by status.
final class RequestMetrics: Sendable {
    private let dimensions: [(String, String)]
    private let handles = Mutex<[Int: (counter: Counter, recorder: Recorder)]>([:])

    init(service: String, name: String, method: String) {
        dimensions = [("method", method), ("name", name), ("service", service)]
    }

    func record(status: Int, seconds: Double) {
        let (counter, recorder) = handles.withLock { handles in
            if let known = handles[status] { return known }
            let labels = dimensions + [("status", String(status))]
            let made = (
                counter: Counter(label: "http_requests_total", dimensions: labels),
                recorder: Recorder(label: "http_request_duration_seconds", dimensions: labels, aggregate: true)
            )
            handles[status] = made
            return made
        }
        counter.increment()
        recorder.record(seconds)
    }
}

/// One line for each request to an API.
enum AccessLog {
    static func write(_ route: Route, _ state: RequestState?, head: RequestHead, reply: Reply, seconds: Double) {
        let logger = Logger.current
        let level: Logger.Level = HealthEndpoints.names.contains(route.endpoint.name) ? .debug : .notice
        guard logger.logLevel <= level else { return }
        var metadata: Logger.Metadata = [
            "v": .stringConvertible(2),
            "name": .string(route.endpoint.name),
            "service": .string(route.api.service),
            "apiVersion": .string(route.api.version),
            "method": .string(head.method),
            "resource": .string(state?.partResource ?? resource(route, head)),
            "statusCode": .stringConvertible(reply.status),
            "duration": .stringConvertible((seconds * 1_000_000).rounded() / 1000),
            "public": .stringConvertible(route.endpoint.scopes == nil),
            "authenticated": .stringConvertible(state?.identity?.clientID != nil),
        ]
        if let query = head.rawQuery {
            metadata["query"] = .string(QueryOptions.redacted(query))
        }
        if let address = head.remoteAddress() {
            metadata["sourceIp"] = .string(address)
        }
        if let identity = state?.identity, let clientID = identity.clientID {
            metadata["clientId"] = .string(clientID)
            metadata["expires"] = .string(identity.expires.iso8601)
        }
        if let satisfied = state?.satisfied, let identity = state?.identity {
            let scopes = satisfied.satisfying(identity.scopes) ?? []
            metadata["satisfyingScopes"] = .array(scopes.map { .string($0) })
        }
        logger.log(level: level, "monitor.apiMethod", metadata: metadata)
    }

    /// The path as it was asked for; dots stand for parameters that grant something by themselves.
    private static func resource(_ route: Route, _ head: RequestHead) -> String {
        guard !route.endpoint.secretParameters.isEmpty else { return String(head.path) }
        let path = head.path.split(separator: "/", omittingEmptySubsequences: false)
        guard path.count > 4, let captures = route.pattern.match(path[4...]) else { return "..." }
        var result = "/api/\(route.api.service)/\(route.api.version)"
        var values = captures[...]
        for segment in route.pattern.segments {
            switch segment {
            case .literal(let literal):
                result += "/" + literal
            case .parameter(let name), .rest(let name):
                let raw = values.popFirst()?.raw ?? ""
                result += route.endpoint.secretParameters.contains(name) ? "/..." : "/\(raw)"
            }
        }
        return result
    }
}
