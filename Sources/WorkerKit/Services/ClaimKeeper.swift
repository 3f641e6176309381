// SPDX-License-Identifier: MPL-2.0

public import Core
import JSON
public import Schedules
import Synchronization
public import Taskcluster
public import TaskclusterClient

/// Keeps a claim alive for as long as the work on it lasts, and holds its newest credentials.
public final class ClaimKeeper: Sendable {
    private struct State {
        var upkeep: ClaimUpkeep
        var credentials: Hawk.Credentials
        var lastRenewal: Timestamp?
    }

    /// The claim as the queue gave it.
    public let claim: Claim
    /// Becomes known, with the reason, when the run is no longer ours.
    public let lost = Latch<String>()
    private let state: Mutex<State>
    private let makeClient: @Sendable (@escaping @Sendable () async -> Hawk.Credentials?) -> TaskclusterClient
    private let onCredentials: @Sendable (Hawk.Credentials) -> Void
    private let onRenewal: @Sendable (Timestamp) -> Void
    private let onProblem: @Sendable (String) -> Void
    private let now: @Sendable () -> Timestamp

    /// Creates a keeper; nothing happens before ``run()``.
    ///
    /// New credentials go to `onCredentials` before anybody else can use them.
    public init(
        _ claim: Claim,
        interval: Duration,
        now: @escaping @Sendable () -> Timestamp = { Timestamp.now() },
        makeClient: @escaping @Sendable (@escaping @Sendable () async -> Hawk.Credentials?) -> TaskclusterClient,
        onCredentials: @escaping @Sendable (Hawk.Credentials) -> Void,
        onRenewal: @escaping @Sendable (_ takenUntil: Timestamp) -> Void = { _ in },
        onProblem: @escaping @Sendable (String) -> Void
    ) {
        self.claim = claim
        self.now = now
        self.makeClient = makeClient
        self.onCredentials = onCredentials
        self.onRenewal = onRenewal
        self.onProblem = onProblem
        state = Mutex(
            State(
                upkeep: ClaimUpkeep(takenUntil: claim.takenUntil, interval: interval, now: now()),
                credentials: claim.credentials
            )
        )
    }

    /// A client that always uses the newest credentials of the run.
    public var client: TaskclusterClient { makeClient { self.state.withLock { $0.credentials } } }
    /// Until when the run is ours, as far as we know.
    public var takenUntil: Timestamp { state.withLock { $0.upkeep.takenUntil } }
    /// When the claim was last renewed.
    public var lastRenewal: Timestamp? { state.withLock { $0.lastRenewal } }

    /// Whether the claim is about to end and could not be renewed lately; then long retries make no sense.
    public var isDoubtful: Bool {
        state.withLock { $0.upkeep.failures > 0 && $0.upkeep.takenUntil - now() < .seconds(60) }
    }

    /// Runs a body with the claim kept alive around it.
    public func holding<Result: Sendable>(_ body: @escaping @Sendable () async -> Result) async -> Result {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.run() }
            defer { group.cancelAll() }
            return await body()
        }
    }

    /// Renews the claim in time until it is lost or the task is cancelled.
    public func run() async {
        while !Task.isCancelled {
            switch state.withLock({ $0.upkeep.step(at: now()) }) {
            case .wait(let until):
                try? await Task.sleep(for: until - now())
            case .reclaim:
                await renew()
            case .lost(let reason):
                lost.set(reason)
                return
            }
        }
    }

    /// Asks the queue at once whether the run still is ours; an unreachable queue counts as a yes.
    public func confirm() async -> Bool {
        await renew()
        if case .lost(let reason) = state.withLock({ $0.upkeep.step(at: now()) }) { lost.set(reason) }
        return lost.value == nil
    }

    private func renew() async {
        do {
            let remaining = takenUntil - now()
            let answer = try await client.call(
                "queue",
                "POST",
                claim.path("reclaim"),
                retry: .once,
                timeout: max(.seconds(1), min(.seconds(30), remaining))
            )
            try accept(answer)
        } catch let error as TaskclusterError {
            guard !Task.isCancelled else { return }
            note(failure: Self.failure(error))
        } catch {
            note(failure: .unreachable("the answer makes no sense"))
        }
    }

    private func accept(_ answer: JSONValue) throws {
        guard let until = answer["takenUntil"]?.string.flatMap({ Timestamp($0) }) else { throw CancellationError() }
        let fresh = answer["credentials"].flatMap { Hawk.Credentials(claim: $0) }
        if let fresh { onCredentials(fresh) }
        state.withLock { state in
            if let fresh { state.credentials = fresh }
            state.lastRenewal = now()
            state.upkeep.renewed(until: until, now: now())
        }
        onRenewal(until)
    }

    private func note(failure: ClaimUpkeep.Failure) {
        state.withLock { $0.upkeep.failed(failure, now: now()) }
        switch failure {
        case .unreachable(let text): onProblem("cannot renew the claim yet: \(text)")
        case .refused(let text): onProblem(text)
        }
    }

    /// Only answers about the claim itself end it; a queue that is restarting, or disagrees about the time, is asked again.
    static func failure(_ error: TaskclusterError) -> ClaimUpkeep.Failure {
        switch error.status {
        case 403, 404, 409: .refused("the queue refused to renew the claim: \(error.status ?? 0) \(error.code)")
        default: .unreachable("\(error)")
        }
    }
}

extension RetryPolicy {
    /// A single attempt.
    public static let once = RetryPolicy(attempts: 1, base: .zero, maximum: .zero)
}
