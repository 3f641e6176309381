// SPDX-License-Identifier: MPL-2.0

import Crypto
import HTTPClient
import JSON
import Logging
import Schedules

/// What an issuer tells of the owners of opaque tokens, which say nothing themselves: its userinfo endpoint.
///
/// An answer counts for a minute at most, by the digest of the token; the token itself is not kept. Those who ask for the same
/// token at the same time share one question, and only some questions are under way at a time: strangers who invent tokens
/// cannot make this a burden for the issuer.
actor UserDirectory {
    private enum Answer: Sendable {
        case claims(JSONObject)
        case refused
        case unavailable
    }

    private struct Entry {
        let answer: Answer
        let end: Timestamp
    }

    private static let lifetime = Duration.seconds(60)
    /// A token that is not accepted may be in a moment, when clocks or replicas of the issuer agree.
    private static let grudge = Duration.seconds(10)

    private let url: String
    private let transport: any HTTPTransport
    private let now: @Sendable () -> Timestamp
    private let limit: Int
    private let questions: Int
    private var known: [[UInt8]: Entry] = [:]
    private var refused: [[UInt8]: Entry] = [:]
    private var flights: [[UInt8]: Task<Answer, Never>] = [:]

    init(
        url: String,
        transport: any HTTPTransport,
        limit: Int = 1000,
        questions: Int = 16,
        now: @escaping @Sendable () -> Timestamp
    ) {
        self.url = url
        self.transport = transport
        self.limit = limit
        self.questions = questions
        self.now = now
    }

    /// What the issuer says of the owner of a token.
    func claims(of token: String) async throws(StepProblem) -> JSONObject {
        switch try await answer(token) {
        case .claims(let claims): return claims
        case .refused: throw TokenProblem.refusal("invalid_token", "The issuer does not know the token")
        case .unavailable: throw Self.unavailable
        }
    }

    private func answer(_ token: String) async throws(StepProblem) -> Answer {
        let digest = Array(SHA256.hash(data: Array(token.utf8)))
        let moment = now()
        if let entry = known[digest] ?? refused[digest], moment < entry.end { return entry.answer }
        if let flight = flights[digest] { return await flight.value }
        guard flights.count < questions else { throw Self.unavailable }
        // All who wait share one request, which therefore must not end with the one who happened to begin it.
        let flight = Task { await self.ask(token) }
        flights[digest] = flight
        let answer = await flight.value
        flights[digest] = nil
        switch answer {
        case .claims: Self.keep(Entry(answer: answer, end: moment + Self.lifetime), digest, in: &known, limit, now())
        case .refused: Self.keep(Entry(answer: answer, end: moment + Self.grudge), digest, in: &refused, limit, now())
        case .unavailable: break
        }
        return answer
    }

    private static func keep(
        _ entry: Entry,
        _ digest: [UInt8],
        in entries: inout [[UInt8]: Entry],
        _ limit: Int,
        _ now: Timestamp
    ) {
        if entries.count >= limit { entries = entries.filter { now < $0.value.end } }
        // More at a time than fit are asked about each time.
        if entries.count < limit || entries[digest] != nil { entries[digest] = entry }
    }

    private func ask(_ token: String) async -> Answer {
        var request = HTTPRequest(
            url: url,
            headers: ["Accept": "application/json", "Authorization": "Bearer \(token)"],
            timeout: .seconds(10)
        )
        request.sink = .memory(limit: 64 << 10)
        do {
            let response = try await transport.send(request)
            switch response.status {
            case 200:
                // Some answer 200 where they mean 401, with a word in place of a document.
                guard let claims = (try? response.json())?.object, DuplicateKeys.first(in: response.body) == nil else {
                    return .refused
                }
                return .claims(claims)
            case 400, 401, 403:
                return .refused
            default:
                Logger.current.error("the issuer tells nothing of a token", metadata: ["status": "\(response.status)"])
                return .unavailable
            }
        } catch {
            Logger.current.error("the issuer tells nothing of a token", metadata: ["error": "\(error.code.name)"])
            return .unavailable
        }
    }

    private static let unavailable = StepProblem(
        503,
        "userinfo_unavailable",
        "The issuer of the token cannot be asked now",
        headers: ["Retry-After": "5"]
    )
}
