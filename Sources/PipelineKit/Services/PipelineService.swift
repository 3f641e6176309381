// SPDX-License-Identifier: MPL-2.0

public import Core
public import JSON
public import Notices
import Postgres
import Schedules
public import StepKit

/// Pipelines: steps that other services carry out, in the order in which they wait for each other.
public struct PipelineService: StepService {
    /// `pipeline`.
    public var name: String { "pipeline" }

    let store: StepStore
    let runs: RunStore
    let freezes: FreezeStore
    let templates: TemplateStore
    let notices: PipelineNotices
    let client: StepClient
    let board: StatusBoard
    private let services: [String]
    private let webhooks: [String]

    /// How deep pipelines may be nested.
    static let depthLimit = 5
    /// How long a pipeline that waits for others is left alone at most.
    private static let patience = Duration.seconds(30)

    /// Opens the pipelines of a store.
    ///
    /// - Parameters:
    ///   - store: The pipelines.
    ///   - client: Calls the services of their steps.
    ///   - services: What the addresses of steps may begin with.
    ///   - webhooks: What the addresses that are told of events may begin with.
    ///   - noticeLimit: How much one recipient is told before things are collected.
    ///   - zones: The time zones of freezes that recur.
    public init(
        store: StepStore,
        client: StepClient,
        services: [String],
        webhooks: [String] = [],
        noticeLimit: NoticeStore.Limit = NoticeStore.Limit(count: 60, window: .seconds(3600)),
        zones: TimeZoneFiles = .system
    ) {
        self.store = store
        self.client = client
        self.services = services
        self.webhooks = webhooks
        runs = RunStore(pool: store.pool)
        freezes = FreezeStore(pool: store.pool, zones: zones)
        templates = TemplateStore(pool: store.pool)
        notices = PipelineNotices(store: store, limit: noticeLimit)
        board = StatusBoard(reading: runs.stamps)
    }

    // MARK: - The contract

    /// A pipeline whose steps fit together; all that is wrong with it is told at once.
    public func definition(_ body: JSONObject, uid: String, origin: StepOrigin) async throws -> StepDefinition {
        guard origin.depth <= Self.depthLimit else {
            throw StepProblem.invalid("Pipelines are nested up to \(Self.depthLimit) deep", code: "too_deep")
        }
        guard !origin.ancestors.contains(uid) else {
            throw StepProblem.invalid("The pipeline \(uid) would contain itself", code: "nested_in_itself")
        }
        let definition = try checked(body, uid: uid)
        return StepDefinition(definition.json, labels: definition.labels)
    }

    /// Names that are paths beside the pipelines.
    static let reserved: Set<String> = [
        "releases", "signoff", "disabled-products", "versions", "nightly-release", "product-details", "decision-task",
        "merge-automation", "xpi", "v1",
    ]

    /// A definition that somebody asks for.
    func checked(_ body: JSONObject, uid: String) throws(StepProblem) -> PipelineDefinition {
        if Self.reserved.contains(uid) {
            throw StepProblem.invalid("the uid \(uid) is reserved", code: "invalid_uid")
        }
        guard body["template"] == nil else {
            throw StepProblem.invalid(
                "A pipeline is made from a template by instantiating that",
                code: "unknown_member"
            )
        }
        return try DefinitionReader.read(body, uid: uid, services: services, webhooks: webhooks)
    }

    /// The order in which the steps would run.
    public func plan(_ definition: StepDefinition) -> JSONObject? {
        // It was checked a moment ago: what is no pipeline has no plan.
        guard let pipeline = try? Self.parsed(definition.value) else { return nil }
        let graph = StepGraph(pipeline.steps)
        var warnings: [String] = []
        if pipeline.steps.isEmpty { warnings.append("the pipeline has no steps and is done at once") }
        for step in pipeline.steps where step.timeout == nil && pipeline.deadline == nil {
            warnings.append("\(step.uid) may take for ever: it has no timeout_s, and there is no deadline")
        }
        return [
            "order": .array(graph.waves.map { JSONValue($0) }), "critical_path": JSONValue(graph.criticalPath),
            "warnings": JSONValue(warnings),
        ]
    }

    /// Stores the steps; the first look starts those that wait for nothing.
    public func begin(_ change: inout StepTransaction) async throws {
        let definition = try Self.parsed(change.step.definition)
        try await runs.insert(definition, change)
        if let key = definition.concurrencyKey {
            let others = try await runs.predecessors(key, before: change.step.id, on: change.connection, locking: true)
            if let other = others.first, definition.concurrencyPolicy == .reject {
                throw StepProblem.conflict(
                    "concurrency_key_busy",
                    "The pipeline \(other.uid) of the key \(key) goes on"
                )
            }
        }
        change.move(to: .starting, message: "")
        change.step.nextCheck = change.now
        let steps = definition.steps.enumerated().map { StepRun(uid: $1.uid, position: $0) }
        describe(Evaluation(definition, steps, now: change.now), &change)
        try await notices.tell([PipelineNotices.Happening(.pipelineStarted)], definition, change)
    }

    /// Tells the services of all steps that go on; the pipeline ends when they have.
    public func cancel(_ change: inout StepTransaction, reason: String?) async throws {
        try await runs.setCancelled(true, change.step.id, on: change.connection)
        change.move(to: .stopping, message: reason ?? "cancelled")
        change.step.nextCheck = change.now
    }

    static func parsed(_ json: JSONValue) throws(StepProblem) -> PipelineDefinition {
        try DefinitionReader.read(json.object ?? [:], uid: json["uid"]?.string ?? "", services: nil)
    }

    // MARK: - Looking after

    /// What a look came to.
    private struct Outlook: Sendable {
        var effects: [Effect] = []
        var freedLocks: [String] = []
        /// The key that another pipeline may be waiting for.
        var freedKey: String?
        /// Older pipelines that have to make room.
        var toCancel: [String] = []
        var isReleased = false
        /// Whether calls are only played.
        var isDryRun = false
    }

    /// Looks at a pipeline until nothing is to be done at once: stores what follows, makes the calls that are due, and takes
    /// in what they came to, as soon as each comes.
    public func look(_ claim: StepClaim) async throws {
        let mailbox = Mailbox()
        try await withThrowingDiscardingTaskGroup { group in
            var arrived: [Observation] = []
            var busy: Set<String> = []
            while true {
                let (letters, underWay) = (arrived, busy)
                let change = try await claim.change { change in
                    try await advance(&change, letters, busy: underWay)
                }
                // Somebody else has taken over: what is known here is old.
                guard let (step, outlook) = change else {
                    group.cancelAll()
                    return
                }
                try await tell(outlook, step)
                if outlook.isReleased { return }
                for effect in outlook.effects {
                    mailbox.begin(effect.step)
                    if outlook.isDryRun {
                        mailbox.put(effect.played)
                    } else {
                        group.addTask { mailbox.put(await client.perform(effect, for: step)) }
                    }
                }
                (arrived, busy) = await mailbox.take(within: .seconds(1))
            }
        }
    }

    private func tell(_ outlook: Outlook, _ step: Step) async throws {
        if !outlook.freedLocks.isEmpty { try await store.wake(runs.waiters(outlook.freedLocks)) }
        if let key = outlook.freedKey { try await store.wake(runs.successors(key, after: step.id)) }
        for uid in outlook.toCancel {
            _ = try await store.change(uid, actor: store.announcement.actor) { change in
                guard !change.step.state.isTerminal, change.step.state != .stopping else { return }
                change.record("cancel", ["reason": .string("\(step.uid) takes its place")])
                try await cancel(&change, reason: "\(step.uid) takes its place")
            }
        }
    }

    private func advance(
        _ change: inout StepTransaction,
        _ observations: [Observation],
        busy: Set<String>
    ) async throws -> Outlook {
        var outlook = Outlook()
        guard !change.step.state.isTerminal else {
            change.release()
            change.step.nextCheck = nil
            outlook.isReleased = true
            return outlook
        }
        let id = change.step.id
        let definition = try Self.parsed(change.step.definition)
        let run = try await runs.run(id, on: change.connection)
        let before = try await runs.steps(id, on: change.connection)
        var evaluation = Evaluation(definition, before, now: change.now)
        outlook.isDryRun = definition.isDryRun
        evaluation.isPaused = run.isPaused
        evaluation.isCancelled = run.isCancelled
        evaluation.freezes = try await freezes.current(at: change.now, on: change.connection)
        if let key = definition.concurrencyKey, !run.isCancelled, before.allSatisfy({ $0.intended == nil }) {
            let others = try await runs.predecessors(key, before: id, on: change.connection)
            evaluation.isQueued = !others.isEmpty
            if definition.concurrencyPolicy == .cancelOldest { outlook.toCancel = others.map(\.uid) }
        }
        evaluation.apply(observations)
        outlook.freedLocks = try await settle(&evaluation, before, &change)
        try await finish(evaluation, before, &change)
        if change.step.state.isTerminal { outlook.freedKey = definition.concurrencyKey }
        outlook.effects = evaluation.effects(besides: busy)
        if change.step.state.isTerminal || (outlook.effects.isEmpty && busy.isEmpty) {
            outlook.isReleased = true
            change.release()
        }
        return outlook
    }

    /// Draws all conclusions, starts what can start, and gives back the locks of what has ended.
    private func settle(
        _ evaluation: inout Evaluation,
        _ before: [StepRun],
        _ change: inout StepTransaction
    ) async throws -> [String] {
        let id = change.step.id
        evaluation.settle()
        let locking = evaluation.definition.steps.filter { !$0.locks.isEmpty }
        if !locking.isEmpty {
            try await runs.guardLocks(Set(locking.flatMap(\.locks)), on: change.connection)
        }
        var inLine: Set<String> = []
        while true {
            let candidates = evaluation.startable.filter { !inLine.contains($0.uid) }
            guard let next = candidates.first else { break }
            let locks = evaluation.specification(next.uid)?.locks ?? []
            if !locks.isEmpty {
                let since = next.readySince ?? change.now
                guard try await runs.take(locks, for: next.uid, of: id, since: since, change) else {
                    inLine.insert(next.uid)
                    continue
                }
            }
            evaluation.intend(next.uid)
            // A step whose parameters make no sense ends here, and others with it.
            evaluation.settle()
        }
        let old = Dictionary(before.map { ($0.uid, $0) }) { first, _ in first }
        let ended = locking.compactMap { step -> String? in
            guard let run = evaluation.steps[step.uid], let previous = old[step.uid] else { return nil }
            let isOver = run.state.isTerminal && !previous.state.isTerminal
            return isOver || run.attempt != previous.attempt ? step.uid : nil
        }
        return try await runs.release(ended, of: id, on: change.connection)
    }

    /// Writes what has changed, and moves the pipeline with its steps.
    private func finish(
        _ evaluation: Evaluation,
        _ before: [StepRun],
        _ change: inout StepTransaction
    ) async throws {
        try await runs.write(evaluation.ordered, before: before, change.step.id, on: change.connection)
        for note in evaluation.notes { change.record(note.kind, subject: note.step, note.data) }
        describe(evaluation, &change)
        let state = evaluation.state
        var message = ""
        switch state {
        case .completed:
            let outputs = JSONObject(
                evaluation.ordered.filter { !$0.output.isEmpty }.map { (key: $0.uid, value: .object($0.output)) }
            )
            if JSONValue.object(outputs).bytes().count <= 64 << 10 { change.step.output = outputs }
        case .failed, .exception:
            let culprits = evaluation.ordered.filter { $0.state == .failed || $0.state == .exception }
            message = culprits.prefix(3).map { "\($0.uid) \($0.state.rawValue): \($0.message)" }.joined(separator: "; ")
        case .cancelled, .stopping:
            message = change.step.message
        default:
            break
        }
        let wasTerminal = change.step.state.isTerminal
        change.move(to: state, message: String(message.prefix(2000)))
        try await notices.tell(
            PipelineNotices.happenings(evaluation, before, end: wasTerminal || !state.isTerminal ? nil : change.step),
            evaluation.definition,
            change
        )
        if !state.isTerminal {
            let next = evaluation.nextMoment
            change.step.nextCheck = min(next ?? .farFuture, change.now + Self.patience)
        }
    }

    /// Says in lists how far the pipeline is.
    func describe(_ evaluation: Evaluation, _ change: inout StepTransaction) {
        let steps = evaluation.ordered
        change.step.info = [
            "steps_total": JSONValue(steps.count),
            "steps_done": JSONValue(steps.count { $0.state.isTerminal }),
            "current": JSONValue(steps.filter { $0.state.isRemote }.map(\.uid)),
            "paused": JSONValue(evaluation.isPaused),
            "labels": .object(evaluation.definition.labels),
        ]
    }

    // MARK: - Operators

    /// Lets an operator change a pipeline that goes on, and looks at it at once.
    func operate(
        _ uid: String,
        actor: String,
        match: EntityTags?,
        key: StepStore.RequestKey?,
        reopens: Bool = false,
        _ body: (inout Evaluation, inout StepTransaction) async throws -> Void
    ) async throws -> Step {
        let (step, _) = try await store.change(uid, actor: actor, match: match, key: key) { change in
            if change.step.state.isTerminal, !reopens {
                throw StepProblem.conflict("step_closed", "The pipeline is \(change.step.state.rawValue)")
            }
            let id = change.step.id
            let run = try await runs.run(id, on: change.connection)
            let before = try await runs.steps(id, on: change.connection)
            var evaluation = Evaluation(try Self.parsed(change.step.definition), before, now: change.now)
            evaluation.isPaused = run.isPaused
            evaluation.isCancelled = run.isCancelled && !reopens
            try await body(&evaluation, &change)
            if change.step.state.isTerminal {
                try await runs.setCancelled(false, id, on: change.connection)
                change.step.attempt += 1
                change.reopen(to: .running, message: "")
            }
            try await runs.write(evaluation.ordered, before: before, id, on: change.connection)
            for note in evaluation.notes { change.record(note.kind, subject: note.step, note.data) }
            describe(evaluation, &change)
            change.step.nextCheck = change.now
        }
        return step
    }

    /// Lets no further step start, or lets them start again.
    func setPaused(_ isPaused: Bool, _ uid: String, actor: String, match: EntityTags?, key: StepStore.RequestKey?)
        async throws -> Step
    {
        try await operate(uid, actor: actor, match: match, key: key) { evaluation, change in
            guard evaluation.isPaused != isPaused else { return }
            evaluation.isPaused = isPaused
            try await runs.setPaused(isPaused, change.step.id, on: change.connection)
            change.record(isPaused ? "paused" : "resumed")
        }
    }
}
