// SPDX-License-Identifier: MPL-2.0

package import HTTPClient
package import JSON
package import RollerKit

/// Everything an action works with.
package struct ActionContext: Sendable {
    /// What was asked for.
    package private(set) var job: ActionJob
    /// The machine.
    package let target: ActionTarget
    /// The settings of the worker.
    package let settings: ActionSettings
    /// Runs programs.
    package let tools: ToolRunner
    /// Sends HTTP requests.
    package let transport: any HTTPTransport
    /// Reads credentials.
    package let credentials: @Sendable (String) throws -> Credential
    /// The rules that the job must keep, and the record of what it does.
    package let conduct: any JobConduct
    /// All actions, for those made of others.
    package let registry: ActionRegistry
    /// What outlives single jobs in this process.
    package let memory: ControllerMemory
    /// The Taskcluster workers on the machine; nil where there is no queue to speak to.
    var workers: WorkerGate?
    /// Whether this is about giving power back: then only the loss of the job stops it.
    private(set) var isRestoring = false

    /// A context from its parts.
    package init(
        job: ActionJob,
        target: ActionTarget,
        settings: ActionSettings,
        tools: ToolRunner,
        transport: any HTTPTransport,
        credentials: @escaping @Sendable (String) throws -> Credential,
        conduct: any JobConduct,
        registry: ActionRegistry,
        memory: ControllerMemory
    ) {
        self.job = job
        self.target = target
        self.settings = settings
        self.tools = tools
        self.transport = transport
        self.credentials = credentials
        self.conduct = conduct
        self.registry = registry
        self.memory = memory
    }

    /// The credential of a control; from here on none of its values leaves the process unnoticed.
    func credential(of control: Control) throws(ActionError) -> Credential {
        guard let reference = control.credential else {
            throw ActionError(.config, "the controller \(control.name) has no credential")
        }
        do {
            let credential = try credentials(reference)
            tools.redactor.learn(credential.secrets)
            return credential
        } catch {
            throw ActionError(.config, "the credential \(reference) cannot be read")
        }
    }
}

/// What a job must ask before it touches anything, and where it writes down what it did.
///
/// In a worker this is the database; on the command line it is the terminal.
package protocol JobConduct: Sendable {
    /// Throws when the job is to stop: cancelled, out of time, or taken over by another worker.
    func checkpoint() async throws(ActionError)

    /// Throws only when another worker has the job by now: what restores power goes on in spite of all else.
    func checkOwnership() async throws(ActionError)

    /// Writes down that an attempt begins, and answers its number.
    func begin(_ method: String, control: String?, arguments: [String]) async throws(ActionError) -> Int

    /// Writes down how an attempt ended.
    func end(_ attempt: Int, _ end: AttemptEnd) async

    /// Adds to the live log.
    func note(_ kind: String, _ data: JSONObject) async

    /// Tells people at once about something that must not wait for the end of the job.
    func alert(_ kind: String, _ text: String) async

    /// Makes the token with which an installation may tell that it has ended; nil where there is nobody to tell.
    func openCallback() async throws(ActionError) -> String?

    /// What an installation has told so far.
    func installationReport() async throws(ActionError) -> JobStore.InstallationReport?

    /// Says that the job is about to see whether the machine rebooted.
    func beginVerifying() async throws(ActionError)

    /// Waits until a controller bears one more call, lends the turn, and gives it back.
    func takeTurn(_ control: Control, changes: Bool, limit: Duration) async throws(ActionError) -> Turn

    /// Gives a turn back.
    func giveBack(_ turn: Turn) async

    /// Keeps what was found out about a controller, so that nobody has to find it out again.
    func learn(_ fact: JSONObject, about control: Control) async

    /// Writes down, before the power goes, that the machine must have power again and how.
    func intendPower(_ target: ActionTarget, by control: Control) async throws(ActionError)

    /// Writes down that the machine has power.
    func fulfilPower(_ target: ActionTarget) async
}

/// The right to make one call to a controller.
package struct Turn: Sendable, Hashable {
    /// The lease that stands for it; nil where nothing is leased.
    package var resource: String?

    /// A turn held by a lease.
    package init(resource: String?) {
        self.resource = resource
    }
}

/// How an attempt ended.
package struct AttemptEnd: Sendable, Hashable {
    /// Whether it worked.
    package var outcome: AttemptOutcome
    /// The kind of failure.
    package var errorClass: String?
    /// The exit code of the program, where there was one.
    package var exitCode: Int?
    /// One line.
    package var summary: String
    /// What the program printed.
    package var output: String?

    /// An end from its parts.
    package init(
        _ outcome: AttemptOutcome,
        errorClass: String? = nil,
        exitCode: Int? = nil,
        summary: String,
        output: String? = nil
    ) {
        self.outcome = outcome
        self.errorClass = errorClass
        self.exitCode = exitCode
        self.summary = summary
        self.output = output
    }
}

extension ActionContext {
    /// Runs one call to a controller as an attempt of its own: its turn, its record, its end.
    func attempt<Result: Sendable>(
        _ method: String,
        _ control: Control?,
        changes: Bool,
        arguments: [String],
        limit: Duration = .seconds(90),
        _ body: () async throws(ActionError) -> (Result, AttemptEnd)
    ) async throws(ActionError) -> Result {
        if isRestoring { try await conduct.checkOwnership() } else { try await conduct.checkpoint() }
        let turn = try await turn(control, changes: changes, limit: limit)
        do throws(ActionError) {
            let shown = arguments.map(tools.redactor.clean)
            let number = try await conduct.begin(method, control: control?.label, arguments: shown)
            do throws(ActionError) {
                let (result, end) = try await body()
                await conduct.end(number, end)
                if let turn { await conduct.giveBack(turn) }
                return result
            } catch {
                await conduct.end(
                    number,
                    AttemptEnd(error.outcome, errorClass: error.kind.name, summary: error.message)
                )
                throw error
            }
        } catch {
            if let turn { await conduct.giveBack(turn) }
            throw error
        }
    }

    private func turn(_ control: Control?, changes: Bool, limit: Duration) async throws(ActionError) -> Turn? {
        guard let control else { return nil }
        return try await conduct.takeTurn(control, changes: changes, limit: limit)
    }

    /// The same for a job with other parameters.
    func with(_ job: ActionJob) -> ActionContext {
        var copy = self
        copy.job = job
        return copy
    }

    /// The same for giving power back.
    func restoring() -> ActionContext {
        var copy = self
        copy.isRestoring = true
        return copy
    }

    /// Waits; throws within a second when the job is to stop meanwhile.
    func pause(_ duration: Duration) async throws(ActionError) {
        let end = ContinuousClock.now + duration
        while true {
            let left = end - ContinuousClock.now
            guard left > .zero else { return }
            do { try await Task.sleep(for: min(left, .seconds(1))) } catch {
                try await conduct.checkpoint()
                throw ActionError(.canceled, "interrupted")
            }
            if duration > .seconds(1), !isRestoring { try await conduct.checkpoint() }
        }
    }

    /// Runs something to its end even if the job is stopped meanwhile: between off and on there is no stopping.
    func uninterrupted<Result: Sendable>(
        _ body: @escaping @Sendable () async throws(ActionError) -> Result
    ) async throws(ActionError) -> Result {
        // A task of its own does not inherit the cancellation; it is awaited right here.
        let task = Task { () -> Swift.Result<Result, ActionError> in
            do throws(ActionError) { return .success(try await body()) } catch { return .failure(error) }
        }
        return try await task.value.get()
    }
}
