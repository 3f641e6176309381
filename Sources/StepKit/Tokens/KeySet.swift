// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Logging
import Schedules

/// The keys an issuer publishes, kept for an hour.
///
/// A token with an unknown key makes it look once more, at most every 30 seconds however many such tokens come. While the
/// issuer cannot be reached, keys up to a day old serve on.
actor KeySet {
    struct Entry: Sendable {
        let key: VerificationKey
        /// The one algorithm the issuer uses it for, if it says so.
        let algorithm: String?
    }

    private static let freshness = Duration.seconds(3600)
    private static let endurance = Duration.seconds(86_400)
    private static let pause = Duration.seconds(30)

    private let url: String
    private let transport: any HTTPTransport
    private let refusesTestIssuers: Bool
    private let now: @Sendable () -> Timestamp
    private var keys: [String: Entry] = [:]
    private var fetched: Timestamp?
    private var attempted: Timestamp?
    private var flight: Task<Void, Never>?

    init(
        url: String,
        transport: any HTTPTransport,
        refusesTestIssuers: Bool,
        now: @escaping @Sendable () -> Timestamp
    ) {
        self.url = url
        self.transport = transport
        self.refusesTestIssuers = refusesTestIssuers
        self.now = now
    }

    /// The key of a name; a refusal if the issuer has none of that name or cannot be asked.
    func key(_ name: String, for algorithm: TokenAlgorithm) async throws(StepProblem) -> VerificationKey {
        if let entry = keys[name], isYounger(Self.freshness) { return try Self.checked(entry, algorithm) }
        await refresh()
        guard let fetched, now() - fetched < Self.endurance else { throw TokenProblem.unavailable }
        guard let entry = keys[name] else { throw TokenProblem.key }
        return try Self.checked(entry, algorithm)
    }

    private static func checked(_ entry: Entry, _ algorithm: TokenAlgorithm) throws(StepProblem) -> VerificationKey {
        if let known = entry.algorithm, known != algorithm.rawValue { throw TokenProblem.key }
        return entry.key
    }

    private func isYounger(_ age: Duration) -> Bool {
        fetched.map { now() - $0 < age } ?? false
    }

    /// Fetches the keys, together with everybody else who wants to, unless that was tried a moment ago.
    private func refresh() async {
        if let flight {
            await flight.value
            return
        }
        if let attempted, now() - attempted < Self.pause { return }
        attempted = now()
        // All who wait share one request, which therefore must not end with the one who happened to begin it.
        let task = Task { await self.fetch() }
        flight = task
        await task.value
        flight = nil
    }

    private func fetch() async {
        do {
            var request = HTTPRequest(url: url, headers: ["Accept": "application/json"], timeout: .seconds(10))
            request.sink = .memory(limit: 1 << 20)
            let response = try await transport.send(request)
            guard response.status == 200, let list = try response.json()["keys"]?.array else {
                Logger.current.error("no keys of the issuer", metadata: ["status": "\(response.status)"])
                return
            }
            if refusesTestIssuers, try response.json()[TokenRules.testIssuerClaim] != nil {
                Logger.current.error("the issuer is one for tests, and this is not a test")
                return
            }
            var found: [String: Entry] = [:]
            for json in list {
                guard let name = json["kid"]?.string, let key = await VerificationKey(json) else { continue }
                found[name] = Entry(key: key, algorithm: json["alg"]?.string)
            }
            keys = found
            fetched = now()
        } catch {
            Logger.current.error("no keys of the issuer", metadata: ["error": "\(error)"])
        }
    }
}
