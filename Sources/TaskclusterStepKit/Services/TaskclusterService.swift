// SPDX-License-Identifier: MPL-2.0

public import JSON
import Postgres
import Schedules
public import StepKit
import Taskcluster
public import TaskclusterClient

/// Steps that are tasks: groups that are followed, hooks and actions that are triggered, tasks that are created.
///
/// What makes tasks is stored before it is done, under names that are stored too, so that nothing is done twice: a task is
/// created again under the same id, and a hook that may have fired is asked about and never triggered blindly.
public struct TaskclusterService: StepService {
    /// How long things are waited for.
    public struct Pace: Sendable {
        /// How often a task that makes others is asked about, at first.
        public var eager: Duration = .seconds(5)
        /// How often a group is listed, at first and at last, when nothing is heard of it.
        public var patient: ClosedRange<Duration> = .seconds(30)...(.seconds(300))
        /// How soon a group is listed again when much is heard of it.
        public var calm: Duration = .seconds(2)
        /// How long a trigger that got no answer may still take effect.
        public var doubt: Duration = .seconds(60)

        /// The usual ones.
        public init() {}
    }

    /// `taskcluster`.
    public var name: String { "taskcluster" }
    /// The path of the original.
    public var alias: String? { "/steps" }
    /// As the original's list did.
    public var aliasListsNames: Bool { true }

    /// Whether deleting at the path of the original cancels what goes on.
    public var aliasDeletesAll = false

    let store: StepStore
    let runs: RunStore
    let client: TaskclusterClient
    let bus: QueueListener?
    /// Whether the hooks service gives a task the id that `taskId` of a trigger's payload names.
    let hooksNameTasks: Bool
    let pace: Pace

    /// Opens the steps of a store; the client asks once and leaves repetition to the runner.
    public init(
        store: StepStore,
        client: TaskclusterClient,
        bus: QueueListener? = nil,
        hooksNameTasks: Bool = false,
        pace: Pace = Pace()
    ) {
        self.store = store
        self.client = client
        self.bus = bus
        self.hooksNameTasks = hooksNameTasks
        self.pace = pace
        runs = RunStore(pool: store.pool)
    }

    // MARK: - The contract

    /// Where the tasks come from, and what counts as success.
    public func definition(_ body: JSONObject, uid: String, origin: StepOrigin) async throws -> StepDefinition {
        StepDefinition(try TaskclusterDefinition(body).json(uid: uid))
    }

    /// Chooses the names under which everything is done; the work begins with the first look.
    public func begin(_ change: inout StepTransaction) async throws {
        let definition = try definition(of: change.step)
        var run = TaskRun(stepID: change.step.id, mode: definition.work.mode, nonce: Slugid.make())
        switch definition.work {
        case .track(let group, let task):
            run.groupID = group
            run.taskID = task
            run.hasBegun = true
        case .hook, .action:
            run.taskID = Slugid.make()
        case .task(let task, let id):
            run.taskID = id ?? Slugid.make()
            run.intent = Self.dated(task, at: change.now)
            run.groupID = task["taskGroupId"]?.string ?? run.taskID
        }
        if definition.isUnique, let group = run.groupID,
            try await runs.follower(of: group, besides: change.step.id, on: change.connection) != nil
        {
            throw StepProblem.conflict("group_taken", "Step with that task_group_id already exists")
        }
        try await runs.add(run, on: change.connection)
        change.step.nextCheck = change.now
        change.move(to: .starting, message: "")
        describe(run, &change)
    }

    /// What is only tracked is let go; what was begun here is cancelled first.
    public func cancel(_ change: inout StepTransaction, reason: String?) async throws {
        let definition = try definition(of: change.step)
        guard definition.cancels else {
            change.move(to: .cancelled, message: reason ?? "no longer followed")
            return
        }
        change.step.nextCheck = change.now
        change.move(to: .stopping, message: reason ?? "being cancelled")
    }

    func definition(of step: Step) throws -> TaskclusterDefinition {
        try TaskclusterDefinition(step.definition.object ?? [:])
    }

    /// A task with the times it lacks, which are stored so that it stays the same task.
    private static func dated(_ task: JSONValue, at now: Timestamp) -> JSONValue {
        var task = task
        if task["created"] == nil { task["created"] = .string(now.iso8601) }
        if task["deadline"] == nil { task["deadline"] = .string((now + .seconds(86_400)).iso8601) }
        return task
    }

    // MARK: - Looking

    /// Does what is to be done next for a step.
    public func look(_ claim: StepClaim) async throws {
        guard let run = try await runs.run(claim.step.id) else {
            throw PostgresError(.decoding, "the step \(claim.step.uid) has no run")
        }
        let definition = try definition(of: claim.step)
        let look = Look(claim: claim, definition: definition, run: run)
        do {
            switch claim.step.state {
            case .stopping: try await stop(look)
            case .completed, .exception, .cancelled: try await settle(look) { _, _ in }
            case .failed: try await reconsider(look)
            case .pending, .starting, .running:
                if run.hasBegun { try await follow(look) } else { try await start(look) }
            }
        } catch let error as TaskclusterError {
            try await wait(look, because: error)
        }
    }

    /// One look at a step.
    struct Look: Sendable {
        let claim: StepClaim
        let definition: TaskclusterDefinition
        let run: TaskRun
        var step: Step { claim.step }
    }

    /// Ends a look with a change of the step and its run; the next look is when the change says, or at once if the bus
    /// has said something in the meantime.
    func settle(
        _ look: Look,
        _ body: (inout StepTransaction, inout TaskRun) throws -> Void
    ) async throws {
        _ = try await look.claim.change { change in
            change.release()
            guard var run = try await runs.run(look.step.id, on: change.connection) else { return }
            let before = run
            // Somebody has cancelled it during the look: what was seen matters less than that.
            if change.step.state == .stopping, look.step.state != .stopping {
                change.step.nextCheck = change.now
                return
            }
            change.step.nextCheck = nil
            try body(&change, &run)
            // A failure alone may be looked at again.
            if change.step.state.isTerminal, change.step.state != .failed { change.step.nextCheck = nil }
            if run.heard != look.run.heard, let next = change.step.nextCheck {
                change.step.nextCheck = min(next, max(change.now, (run.listed ?? change.now) + pace.calm))
            }
            if run != before { try await runs.save(run, on: change.connection) }
        }
    }

    /// Changes the run in the middle of a look; nil if somebody else has taken over.
    func note(_ look: Look, _ body: (inout StepTransaction, inout TaskRun) -> Void) async throws -> Look? {
        let changed = try await look.claim.change { change -> TaskRun? in
            guard var run = try await runs.run(look.step.id, on: change.connection), !change.step.state.isTerminal
            else {
                return nil
            }
            body(&change, &run)
            try await runs.save(run, on: change.connection)
            return run
        }
        guard let changed, let run = changed.result else { return nil }
        return Look(claim: look.claim, definition: look.definition, run: run)
    }

    /// Leaves everything as it is, says since when nothing is known, and asks again later.
    func wait(
        _ look: Look,
        because error: TaskclusterError,
        _ body: (inout TaskRun) -> Void = { _ in }
    ) async throws {
        try await settle(look) { change, run in
            body(&run)
            if change.step.info["stale_since"] == nil {
                change.step.info["stale_since"] = .string(change.now.iso8601)
                change.record("unreachable", ["error": .string(Self.excerpt(error))])
            }
            let stale = change.step.info["stale_since"]?.string.flatMap { Timestamp($0) } ?? change.now
            // The longer it lasts, the longer the pause, up to a minute.
            change.step.nextCheck = change.now + min(max(.seconds(1), (change.now - stale) / 4), .seconds(60))
        }
    }

    /// What a service said, short enough for a message.
    static func excerpt(_ error: TaskclusterError) -> String {
        String("\(error.status.map { "\($0) " } ?? "")\(error.code): \(error.message)".prefix(2000))
    }

    /// Whether a refusal is about the request itself, so that asking again is no use.
    static func isFinal(_ error: TaskclusterError) -> Bool {
        guard let status = error.status else { return false }
        return (400..<500).contains(status) && ![401, 403, 408, 425, 429].contains(status)
    }

    // MARK: - What the status tells

    /// Says which group and task the step is about.
    func describe(_ run: TaskRun, _ change: inout StepTransaction) {
        let group = run.hasBegun ? run.groupID : nil
        let task = run.hasBegun ? run.taskID : nil
        change.step.info["task_group_id"] = group.map { .string($0) } ?? .null
        change.step.info["task_id"] = task.map { .string($0) } ?? .null
        change.step.output["task_group_id"] = group.map { .string($0) }
        change.step.output["task_id"] = task.map { .string($0) }
        change.step.links = []
        if let group {
            let href = "\(client.rootURL)/tasks/groups/\(group)"
            change.step.links.append(Step.Link(rel: "task-group", href: href, title: "Task group"))
        }
        if let task {
            change.step.links.append(Step.Link(rel: "task", href: "\(client.rootURL)/tasks/\(task)", title: "Task"))
        }
    }

    // MARK: - The bus

    /// Looks at once at what follows a group or a task of which the queue has said something.
    public func heard(group: String, task: String?) async throws {
        for step in try await runs.hear(group: group, task: task) {
            try await store.wake([step.id], at: step.listed.map { $0 + pace.calm })
        }
    }

    /// No longer listens to groups that no open step follows.
    public func leaveOldGroups() async throws {
        guard let bus else { return }
        let open = Set(try await runs.followedGroups())
        for group in bus.groups where !open.contains(group) { await bus.leave(group: group) }
    }
}
