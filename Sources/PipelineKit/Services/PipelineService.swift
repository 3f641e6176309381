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
    /// The audit of what concerns no single pipeline.
    package let journal: Journal
    let client: StepClient
    let board: StatusBoard
    /// How many steps that have ended are being asked about.
    let doubts = Tally()
    let services: [String]
    private let webhooks: [String]

    /// How deep pipelines may be nested.
    static let depthLimit = 5
    /// Opens the pipelines of a store.
    ///
    /// - Parameters:
    ///   - store: The pipelines.
    ///   - client: Calls the services of their steps.
    ///   - services: What the addresses of steps may begin with.
    ///   - webhooks: What the addresses that are told of events may begin with.
    ///   - noticeLimit: How much one recipient is told before things are collected.
    ///   - lists: Who is told that a group's approval is needed.
    ///   - zones: The time zones of freezes that recur.
    public init(
        store: StepStore,
        client: StepClient,
        services: [String],
        webhooks: [String] = [],
        noticeLimit: NoticeStore.Limit = NoticeStore.Limit(count: 60, window: .seconds(3600)),
        lists: GroupLists = .none,
        zones: TimeZoneFiles = .system
    ) {
        self.store = store
        self.client = client
        self.services = services
        self.webhooks = webhooks
        runs = RunStore(pool: store.pool)
        journal = Journal(store: store)
        freezes = FreezeStore(pool: store.pool, journal: journal, zones: zones)
        templates = TemplateStore(pool: store.pool, journal: journal)
        notices = PipelineNotices(store: store, limit: noticeLimit, lists: lists)
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
        let endless = pipeline.deadline == nil ? pipeline.steps.filter { $0.timeout == nil && $0.deadline == nil } : []
        if !endless.isEmpty {
            let names = endless.map(\.uid).joined(separator: ", ")
            warnings.append("may take for ever, without timeout_s and a deadline: \(names)")
        }
        if !pipeline.namespacesSteps, let step = pipeline.steps.first(where: { $0.remoteUID == nil }) {
            warnings.append(
                "\(step.uid) and others have the names at their services that steps of other pipelines may have, too: "
                    + "namespace_steps tells them apart"
            )
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
            let others = try await runs.rivals(key, of: change.step.id, on: change.connection, locking: true)
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
}
