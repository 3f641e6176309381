// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import JSON
import Schedules

/// The endpoints that every API has and that load balancers and people ask for a sign of life.
struct HealthEndpoints: Sendable {
    static let names: Set<String> = ["ping", "lbheartbeat", "heartbeat", "version"]

    let health: HealthRegistry
    private let started = ContinuousClock.now
    private let build: JSONValue

    init(health: HealthRegistry) {
        self.health = health
        func text(_ variable: String) -> JSONValue {
            .string(getenv(variable).map { String(cString: $0) } ?? "")
        }
        build = [
            "version": .string(Release.version),
            "commit": text("SOURCE_COMMIT"),
            "source": text("SOURCE_URL"),
            "build": text("BUILD_URL"),
        ]
    }

    /// The endpoints to add to an API that does not declare its own of the same names.
    func endpoints(besides declared: [Endpoint]) -> [Endpoint] {
        let taken = Set(declared.map(\.name))
        return [
            endpoint("/ping", "ping", "Ping Server", "Answers when the server is up.") { .json(ping()) },
            endpoint("/__lbheartbeat__", "lbheartbeat", "Load Balancer Heartbeat", "Answers when the server is up.") {
                .json([:])
            },
            endpoint("/__version__", "version", "Taskcluster Version", "Tells which release is running.") {
                .json(version())
            },
            endpoint("/__heartbeat__", "heartbeat", "Heartbeat", "Checks what the server depends on.") {
                let (value, status) = await heartbeat()
                return .json(value, status: status)
            },
        ]
        .filter { !taken.contains($0.name) }
    }

    func ping() -> JSONValue {
        ["alive": true, "uptime": JSONValue((ContinuousClock.now - started).seconds)]
    }

    func version() -> JSONValue { build }

    /// An empty object while everything works, the names of what does not otherwise.
    func heartbeat() async -> (JSONValue, status: Int) {
        let failures = await health.report().filter { $0.error != nil }
        guard !failures.isEmpty else { return ([:], 200) }
        var failed = JSONObject()
        for (name, error) in failures {
            failed[name] = error.map(JSONValue.string)
        }
        return (["error": "a dependency does not answer", "failed": .object(failed)], 503)
    }

    private func endpoint(
        _ route: String,
        _ name: String,
        _ title: String,
        _ description: String,
        _ answer: @escaping @Sendable () async -> APIResponse
    ) -> Endpoint {
        Endpoint(
            .get,
            route,
            name: name,
            category: name == "ping" ? "Ping Server" : "Monitoring",
            title: title,
            description: description
        ) { _ in await answer() }
    }
}
