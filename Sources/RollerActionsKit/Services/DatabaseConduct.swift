// SPDX-License-Identifier: MPL-2.0

import JSON
import Logging
import Postgres
import RollerKit
import Synchronization

/// The conduct of a job in a worker: PostgreSQL says whether it may go on, and keeps what it did.
///
/// A database that is away for a while holds the job up but does not end it: calls are repeated until it is back. Only
/// what gives power back goes on meanwhile.
final class DatabaseConduct: JobConduct {
    let job: Job
    private let jobs: JobStore
    private let dispatch: DispatchStore
    private let reason = Mutex<ActionError?>(nil)
    private let whenLost = Mutex<(@Sendable () -> Void)?>(nil)
    private static let pauseBetweenTries = Duration.milliseconds(250)

    init(_ job: Job, jobs: JobStore, dispatch: DispatchStore) {
        self.job = job
        self.jobs = jobs
        self.dispatch = dispatch
    }

    /// Makes the next checkpoint throw; the first reason stays, except that a lost job is lost whatever else happened, and
    /// that a job which has passed the hard limit did not stop at the soft one.
    func stop(_ error: ActionError) {
        reason.withLock { reason in
            let passed = error.kind == .hardTimeLimit && reason?.kind == .softTimeLimit
            if reason == nil || error.kind == .lost || passed { reason = error }
        }
        if error.kind == .lost { whenLost.withLock { $0 }?() }
    }

    /// Has something done, perhaps more than once, as soon as the job is known to be somebody else's.
    func onLoss(_ body: @escaping @Sendable () -> Void) { whenLost.withLock { $0 = body } }

    /// Why the job is to stop, if it is.
    var stopReason: ActionError? { reason.withLock { $0 } }

    // MARK: - JobConduct

    func checkpoint() async throws(ActionError) {
        if let reason = stopReason { throw reason }
        let (isMine, isCancelRequested) = try await steady {
            try await self.dispatch.holds(self.job.id, fence: self.job.fence)
        }
        guard isMine else { throw lost() }
        if isCancelRequested {
            stop(ActionError(.canceled, "somebody asked the job to stop"))
        }
        if let reason = stopReason { throw reason }
    }

    func checkOwnership() async throws(ActionError) {
        if let reason = stopReason, reason.kind == .lost { throw reason }
        let (dispatch, job) = (dispatch, job)
        // A task of its own: the question is put although the job is stopped.
        let task = Task { try await dispatch.holds(job.id, fence: job.fence).isMine }
        let isMine: Bool
        do {
            isMine = try await task.value
        } catch {
            // Without an answer the power is given back: that does no harm if somebody else does it, too.
            Logger.current.warning(
                "the power is restored without asking whose job it is",
                metadata: ["job": "\(job.id)", "error": "\(error)"]
            )
            return
        }
        guard isMine else { throw lost() }
    }

    func begin(_ method: String, control: String?, arguments: [String]) async throws(ActionError) -> Int {
        let number = try await steady {
            try await self.numbered(method, control: control, arguments: arguments)
        }
        guard let number else { throw lost() }
        return number
    }

    /// Begins an attempt; where several controls are asked side by side, another one may take the same number first.
    private func numbered(_ method: String, control: String?, arguments: [String]) async throws -> Int? {
        for tries in 1... {
            do {
                return try await jobs.beginAttempt(
                    job.id,
                    fence: job.fence,
                    method: method,
                    control: control,
                    arguments: arguments
                )
            } catch let error as PostgresError where error.isUniqueViolation && tries < 50 {
                continue
            }
        }
        return nil
    }

    func end(_ attempt: Int, _ end: AttemptEnd) async {
        await note("the end of an attempt") {
            _ = try await self.jobs.endAttempt(
                self.job.id,
                number: attempt,
                fence: self.job.fence,
                outcome: end.outcome,
                errorClass: end.errorClass,
                exitCode: end.exitCode,
                summary: end.summary,
                output: end.output
            )
        }
    }

    func note(_ kind: String, _ data: JSONObject) async {
        await note("a line of the log") { try await self.jobs.note(self.job.id, kind, data) }
    }

    func alert(_ kind: String, _ text: String) async {
        await note("an alert") { try await self.jobs.alert(self.job.id, key: "\(kind):\(self.job.id)", text: text) }
    }

    func beginVerifying() async throws(ActionError) {
        let isMine = try await steady {
            try await self.jobs.transition(self.job.id, fence: self.job.fence, to: .verifying)
        }
        guard isMine else { throw lost() }
    }

    func takeTurn(_ control: Control, changes: Bool, limit: Duration) async throws(ActionError) -> Turn {
        guard control.kind != .ssh, control.kind != .wakeOnLAN else { return Turn(resource: nil) }
        var place: String?
        while place == nil {
            place = try await steady { try await self.dispatch.takePlace(control, job: self.job, limit: limit) }
            guard place == nil else { break }
            try await checkpoint()
            try await sleep(.milliseconds(200))
        }
        let turn = Turn(resource: place)
        guard changes else { return turn }
        do throws(ActionError) {
            let pause = try await steady { try await self.dispatch.reserveMoment(control) }
            if pause > .zero { try await sleep(pause) }
            return turn
        } catch {
            await giveBack(turn)
            throw error
        }
    }

    func giveBack(_ turn: Turn) async {
        guard let place = turn.resource else { return }
        await note("a place at a controller") { try await self.dispatch.giveBack(place: place, job: self.job) }
    }

    func openCallback() async throws(ActionError) -> String? {
        let token = try await steady { try await self.jobs.openCallback(self.job.id, fence: self.job.fence) }
        guard let token else { throw lost() }
        return token
    }

    func installationReport() async throws(ActionError) -> JobStore.InstallationReport? {
        try await steady { try await self.jobs.installationReport(self.job.id) }
    }

    func learn(_ fact: JSONObject, about control: Control) async {
        await note("what was learned about a controller") {
            try await self.dispatch.learn(fact, about: control.controllerID)
        }
    }

    func intendPower(_ target: ActionTarget, by control: Control) async throws(ActionError) {
        guard let machine = target.machineID else { return }
        let isMine = try await steady { try await self.dispatch.intend(self.job, machine: machine, control: control) }
        guard isMine else { throw lost() }
    }

    func fulfilPower(_ target: ActionTarget) async {
        guard let machine = target.machineID else { return }
        await note("that the machine has power") { try await self.dispatch.fulfil(self.job, machine: machine) }
    }

    // MARK: - Steadiness

    /// Writes something down whose failure must not change what happens to the machine.
    private func note(_ what: String, _ body: @escaping @Sendable () async throws -> Void) async {
        do throws(ActionError) { try await steady(body) } catch {
            Logger.current.warning(
                "not written down: \(what)",
                metadata: ["job": "\(job.id)", "error": "\(error.message)"]
            )
        }
    }

    /// Repeats a call until the database answers; a stopped job goes on writing, a lost one does not.
    private func steady<R: Sendable>(_ body: @escaping @Sendable () async throws -> R) async throws(ActionError) -> R {
        let id = job.id
        // A task of its own: what was done must be written down although the job is stopped.
        let task = Task { () -> Result<R, ActionError> in
            var failures = 0
            while true {
                do { return .success(try await body()) } catch let error as PostgresError
                    where error.isRetriable || error.isConnectionFailure
                {
                    failures += 1
                    if failures == 1 {
                        Logger.current.warning(
                            "a job waits for the database",
                            metadata: ["job": "\(id)", "error": "\(error)"]
                        )
                    }
                    if let reason = self.stopReason, reason.kind == .lost || failures > 240 { return .failure(reason) }
                    do { try await Task.sleep(for: Self.pauseBetweenTries) } catch {
                        return .failure(ActionError(.other, "interrupted while the database was away"))
                    }
                } catch {
                    return .failure(ActionError(.other, "the database refused: \(error)"))
                }
            }
        }
        return try await task.value.get()
    }

    private func lost() -> ActionError {
        let error = ActionError(.lost, "another worker has the job")
        stop(error)
        return error
    }

    private func sleep(_ duration: Duration) async throws(ActionError) {
        do { try await Task.sleep(for: duration) } catch {
            throw stopReason ?? ActionError(.canceled, "interrupted")
        }
    }
}
