// SPDX-License-Identifier: MPL-2.0

import APIServer
import BridgesKit
import Core
import Logging
import Metrics
import Postgres
import Taskcluster

/// Takes what Harbormaster says when the build of a diff begins.
///
/// `POST /codereview/new?diff=…&repo=…&revision=…&target=…`. The caller shows a secret, as the password of basic
/// authentication, which Harbormaster can send, or as a bearer token; never in the address, which ends in logs of proxies.
struct CodeReviewReceiver: Sendable {
    let triggers: [Trigger]
    let secrets: [Secret]
    let runs: RunStore
    let wake: Signal

    var route: RawRoute {
        RawRoute(.post, prefix: "/codereview/new", name: "codereview", handler: receive)
    }

    @Sendable private func receive(_ request: RawRequest) async throws -> RawResponse {
        guard request.rest.isEmpty || request.rest == "/" else {
            throw APIError(.resourceNotFound, "There is nothing at this address")
        }
        guard isAllowed(request.header("Authorization")) else {
            note("refused")
            Logger.current.warning(
                "a build was not announced by Harbormaster",
                metadata: request.remoteAddress.map { ["sourceIp": "\($0)"] } ?? [:]
            )
            return Self.answer(401, "Not allowed", [(name: "WWW-Authenticate", value: "Basic realm=\"codereview\"")])
        }
        let diff: Facts.Diff
        do { diff = try BuildRequest.diff(request.query) } catch {
            note("malformed")
            return Self.answer(400, "Invalid build: \(error)")
        }
        do {
            let count = try await write(diff)
            note(count > 0 ? "accepted" : "duplicate")
            if count > 0 { wake.notify() }
        } catch let error as PostgresError {
            note("unavailable")
            Logger.current.error("a build cannot be written down", metadata: ["error": "\(error)"])
            return Self.answer(503, "The build cannot be queued now", [(name: "Retry-After", value: "5")])
        }
        return Self.answer(200, "Build queued")
    }

    private func write(_ diff: Facts.Diff) async throws -> Int {
        let sighting = Sighting(subject: String(diff.id), facts: .diff(diff), origin: .webhook)
        return try await runs.pool.transaction { connection in
            var count = 0
            for trigger in triggers { count += try await runs.add([sighting], for: trigger, on: connection) }
            return count
        }
    }

    /// Whether a header shows one of the secrets; each is compared.
    func isAllowed(_ authorization: String?) -> Bool {
        let parts = (authorization ?? "").split(separator: " ", maxSplits: 1)
        guard parts.count == 2 else { return false }
        let shown: [UInt8]
        switch parts[0].lowercased() {
        case "bearer": shown = Array(parts[1].utf8)
        case "basic":
            guard let bytes = Base64.decoded(parts[1]), let colon = bytes.firstIndex(of: UInt8(ascii: ":")) else {
                return false
            }
            shown = Array(bytes[(colon + 1)...])
        default: return false
        }
        return secrets.reduce(false) { $1.matches(shown) || $0 }
    }

    private static func answer(
        _ status: Int,
        _ text: String,
        _ headers: [(name: String, value: String)] = []
    ) -> RawResponse {
        RawResponse(
            status: status,
            headers: [(name: "Content-Type", value: "text/plain; charset=utf-8")] + headers,
            body: .bytes(Array(text.utf8))
        )
    }

    private func note(_ outcome: String) {
        Counter(label: "triggers_webhooks_total", dimensions: [("outcome", outcome)]).increment()
    }
}
