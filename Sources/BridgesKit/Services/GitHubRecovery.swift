// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPClient
import JSON
import Logging
import Metrics
import Postgres
import Schedules
import ServiceLifecycle

/// Finds deliveries that GitHub sent and nobody received, and asks GitHub to send them again.
///
/// GitHub tries once. What it tried while no process listened, or while the answer was not 2xx, stands in its own list;
/// this compares that list with the deliveries we have, by their ids, and requests another attempt for each that is
/// missing. An attempt arrives like any other delivery, signed and under the same id, so asking once too often is harmless.
struct GitHubRecovery: Service {
    /// Why a look failed.
    private struct Trouble: Error, CustomStringConvertible {
        let description: String
    }

    let source: String
    let settings: WebhookSource.Recovery
    let store: RecoveryStore
    let transport: any HTTPTransport
    /// How long deliveries are remembered here; what is older cannot be compared.
    let retention: Duration
    var now: @Sendable () -> Timestamp = { .now() }

    /// What a look reaches back over the one before, so that nothing falls between two looks.
    private static let overlap = Duration.seconds(600)
    /// The most pages of one look.
    private static let mostPages = 50
    /// How long a look may take before another process begins one.
    private static let lease = Duration.seconds(300)

    func run() async throws {
        let tick = min(settings.interval, .seconds(30))
        try await PeriodicService(name: "recovery of \(source)", every: tick) {
            try await store.register(settings.hooks, source: source)
            for hook in settings.hooks { try await look(hook) }
        }.run()
    }

    /// Looks at one list if its time has come; answers how many deliveries were asked for.
    @discardableResult
    func look(_ hook: String) async throws -> Int {
        guard let due = try await store.take(hook, lease: Self.lease) else { return 0 }
        do {
            let started = now()
            let since = max(due.since, started - retention + Self.overlap)
            let attempts = try await attempts(hook, since: since)
            let expected = GitHubDeliveryLog.expected(attempts, since: since, now: started)
            let missing = try await store.missing(expected, source: source)
            let asked = try await store.requests(missing, source: source)
            let (again, givenUp) = GitHubDeliveryLog.decide(attempts, missing: missing, asked: asked)
            for attempt in again { try await request(attempt, hook) }
            for id in givenUp { try await giveUp(id) }
            try await store.finish(hook, since: started - Self.overlap, pause: settings.interval)
            return again.count
        } catch let error as PostgresError {
            throw error
        } catch {
            if Task.isCancelled { return 0 }
            let pause = RetryPolicy(attempts: .max, base: settings.interval, maximum: .seconds(3600))
                .delay(before: due.failures + 2)
            Logger.current.log(
                level: due.failures == 0 ? .error : .debug,
                "deliveries cannot be compared with GitHub's list",
                metadata: ["bridge.source": "\(source)", "bridge.hook": "\(hook)", "error": "\(error)"]
            )
            try await store.fail(hook, "\(error)", pause: pause)
            return 0
        }
    }

    /// Asks for another attempt; noted first, so that a delivery is not asked for without end.
    private func request(_ attempt: GitHubDeliveryLog.Attempt, _ hook: String) async throws {
        try await store.note(attempt.deliveryID, source: source)
        let url = "\(hook)/deliveries/\(attempt.number)/attempts"
        let response = try await transport.send(request("POST", url))
        guard response.status == 202 else {
            throw Trouble(description: "status \(response.status) to the request for another attempt")
        }
        Counter(label: "bridge_recoveries_total", dimensions: [("source", source), ("outcome", "requested")])
            .increment()
        Logger.current.notice(
            "delivery never arrived and was asked for again",
            metadata: ["bridge.source": "\(source)", "bridge.delivery": "\(attempt.deliveryID)"]
        )
    }

    private func giveUp(_ id: String) async throws {
        try await store.note(id, source: source)
        Counter(label: "bridge_recoveries_total", dimensions: [("source", source), ("outcome", "given_up")]).increment()
        Logger.current.error(
            "delivery never arrived, however often it was asked for",
            metadata: ["bridge.source": "\(source)", "bridge.delivery": "\(id)"]
        )
    }

    // MARK: - GitHub's list

    /// The attempts since an instant, and some before.
    private func attempts(_ hook: String, since: Timestamp) async throws -> [GitHubDeliveryLog.Attempt] {
        var attempts: [GitHubDeliveryLog.Attempt] = []
        var next: String? = "\(hook)/deliveries?per_page=100"
        var pages = 0
        while let url = next, pages < Self.mostPages {
            pages += 1
            let response = try await transport.send(request("GET", url))
            guard response.status == 200 else { throw Trouble(description: "status \(response.status)") }
            let page = try GitHubDeliveryLog.attempts(try JSONValue(parsing: response.body))
            attempts += page
            guard let oldest = page.last, oldest.moment >= since else { break }
            next = GitHubDeliveryLog.nextPage(response.headers["Link"])
            // The token goes to the server it is meant for and nowhere else.
            if let target = next, Self.origin(target) != Self.origin(hook) {
                throw Trouble(description: "the next page is on another server")
            }
        }
        return attempts
    }

    /// Scheme, host and port of an address.
    private static func origin(_ url: String) -> String {
        url.split(separator: "/", maxSplits: 3, omittingEmptySubsequences: false).prefix(3).joined(separator: "/")
            .lowercased()
    }

    private func request(_ method: String, _ url: String) -> HTTPRequest {
        HTTPRequest(
            method: method,
            url: url,
            headers: [
                "Accept": "application/vnd.github+json",
                "Authorization": "Bearer \(String(decoding: settings.token.bytes, as: UTF8.self))",
                "User-Agent": "slipway/\(Release.version)", "X-GitHub-Api-Version": "2022-11-28",
            ],
            timeout: .seconds(30)
        )
    }
}
