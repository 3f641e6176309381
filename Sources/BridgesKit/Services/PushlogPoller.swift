// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPClient
import JSON
import Logging
import Metrics
import Postgres
import ServiceLifecycle

/// Looks at the pushlogs of Mercurial repositories and announces every push once.
///
/// A repository's place lives in the database and moves in the transaction that writes the messages, and only from where
/// the look began: two processes that saw the same push cannot both announce it. A process that dies while it looks
/// leaves a lease behind, after whose end another one looks.
struct PushlogPoller: Service {
    /// Why a look failed.
    private struct Trouble: Error, CustomStringConvertible {
        let description: String
        var retryAfter: Duration?
    }

    let repositories: [HgRepository]
    let store: RepositoryStore
    let transport: any HTTPTransport
    let exchange: String
    let interval: Duration
    var timeout = Duration.seconds(60)

    /// The longest pause after failures.
    private static let longestPause = Duration.seconds(600)
    /// How many repositories a process looks at together.
    private static let width = 4
    /// The longest answer that is read.
    private static let answerLimit = 64 << 20

    func run() async throws {
        await cancelWhenGracefulShutdown { await loop() }
    }

    private func loop() async {
        var failures = 0
        var isRegistered = false
        while !Task.isCancelled {
            var pause = interval
            do {
                if !isRegistered { try await store.register(repositories) }
                isRegistered = true
                while try await pollDue() == Self.width {}
                pause = try await store.delay(repositories.map(\.name)) ?? interval
                failures = 0
            } catch {
                if Task.isCancelled { return }
                failures += 1
                pause = RetryPolicy.reconnect.delay(before: failures + 1)
                if failures == 1 {
                    Logger.current.error("repositories cannot be read", metadata: ["error": "\(error)"])
                }
            }
            do { try await Task.sleep(for: min(max(pause, .milliseconds(20)), interval)) } catch { return }
        }
    }

    /// Looks at the repositories whose time has come, a few together; answers how many there were.
    @discardableResult
    func pollDue() async throws -> Int {
        let due = try await store.take(repositories.map(\.name), limit: Self.width, lease: timeout * 2)
        try await withThrowingTaskGroup { group in
            for entry in due {
                guard let repository = repositories.first(where: { $0.name == entry.name }) else { continue }
                group.addTask { try await poll(repository, entry) }
            }
            try await group.waitForAll()
        }
        return due.count
    }

    // MARK: - One repository

    private func poll(_ repository: HgRepository, _ due: RepositoryStore.Due) async throws {
        do {
            let pushlog = try await fetch(repository, after: due.cursor)
            let step = PushlogStep.decide(pushlog, cursor: due.cursor, behind: due.behind)
            try await perform(step, repository, due, isLast: pushlog.lastPushID)
            count(repository, "success")
            if due.failures > 0 {
                Logger.current.notice("repository answers again", metadata: ["bridge.repository": "\(repository.name)"])
            }
        } catch let error as PostgresError {
            throw error
        } catch {
            if Task.isCancelled { return }
            count(repository, "failure")
            var pause = RetryPolicy(attempts: .max, base: interval, maximum: max(Self.longestPause, interval))
                .delay(before: due.failures + 2)
            if let asked = (error as? Trouble)?.retryAfter { pause = max(pause, asked) }
            Logger.current.log(
                level: due.failures == 0 ? .error : .debug,
                "repository cannot be looked at",
                metadata: [
                    "bridge.repository": "\(repository.name)", "error": "\(error)", "pause": "\(pause.settingsText)",
                ]
            )
            try await store.note("\(error)", of: due, pause: pause)
        }
    }

    private func perform(
        _ step: PushlogStep,
        _ repository: HgRepository,
        _ due: RepositoryStore.Due,
        isLast lastPushID: Int
    ) async throws {
        let facts: Logger.Metadata = ["bridge.repository": "\(repository.name)", "bridge.push": "\(lastPushID)"]
        switch step {
        case .begin(let cursor):
            _ = try await store.advance(due, to: cursor, messages: [], pause: interval)
            Logger.current.notice("repository is watched from its newest push on", metadata: facts)
        case .nothing:
            _ = try await store.advance(due, to: due.cursor ?? 0, messages: [], pause: interval)
        case .announce(let pushes, let cursor):
            let messages = pushes.map { PushMessages.push($0, of: repository, exchange: exchange) }
            // More are waiting: come back at once.
            let pause: Duration = cursor < lastPushID ? .zero : interval
            guard try await store.advance(due, to: cursor, messages: messages, pause: pause) else { return }
            Counter(label: "bridge_hg_pushes_total", dimensions: [("repository", repository.name)])
                .increment(by: messages.count)
        case .behind(let times):
            _ = try await store.advance(due, to: due.cursor ?? 0, behind: times, messages: [], pause: interval)
            Logger.current.warning("newest push is older than the last one announced", metadata: facts)
        case .reset(let cursor):
            let old = due.cursor ?? 0
            let message = PushMessages.reset(of: repository, from: old, to: cursor, exchange: exchange)
            guard try await store.advance(due, to: cursor, messages: [message], pause: interval) else { return }
            Counter(label: "bridge_hg_resets_total", dimensions: [("repository", repository.name)]).increment()
            Logger.current.error(
                "repository was made anew; watched from its newest push on",
                metadata: facts.merging(["bridge.previous": "\(old)"]) { $1 }
            )
        }
    }

    private func fetch(_ repository: HgRepository, after cursor: Int?) async throws -> Pushlog {
        var url = repository.url + "/json-pushes?version=2"
        if let cursor {
            url += "&startID=\(cursor)&endID=\(cursor + PushlogStep.batch)"
            if repository.isFull { url += "&full=1" }
        } else {
            url += "&tipsonly=1"
        }
        var request = HTTPRequest(url: url, headers: ["Accept": "application/json"], timeout: timeout)
        request.redirects = 3
        request.acceptCompressed = true
        request.sink = .memory(limit: Self.answerLimit)
        let response = try await transport.send(request)
        guard response.status == 200 else {
            let asked = response.headers["Retry-After"].flatMap { Int($0) }.map { min(max($0, 0), 3600) }
            throw Trouble(description: "status \(response.status)", retryAfter: asked.map { .seconds($0) })
        }
        do {
            return try Pushlog(JSONValue(parsing: response.body))
        } catch let error as JSONError {
            throw Trouble(description: "the answer is not JSON: \(error.message)")
        }
    }

    private func count(_ repository: HgRepository, _ outcome: String) {
        Counter(
            label: "bridge_hg_polls_total",
            dimensions: [("repository", repository.name), ("outcome", outcome)]
        ).increment()
    }
}
