// SPDX-License-Identifier: MPL-2.0

import Core
public import HTTPClient
import JSON
public import PipelineKit
import Postgres
import Schedules
import ServiceLifecycle
public import StepKit
import Taskcluster
public import TaskclusterClient

/// Releases: pipelines with a step for each phase, which waits until people have signed and somebody calls for it.
public struct ReleaseService: Sendable {
    /// Where releases belong to.
    public struct Place: Sendable {
        /// The address of the step service that carries out actions of decision tasks.
        public var taskclusterSteps: String
        /// Where repositories of branches are.
        public var repositories: String
        /// The exchange on which the rebuilding of product details is asked for.
        public var detailsExchange: String
        /// Where what was released and what may be are, in folders of products.
        public var archive: String

        /// Describes a place.
        public init(taskclusterSteps: String, repositories: String, detailsExchange: String, archive: String) {
            self.taskclusterSteps = taskclusterSteps
            self.repositories = repositories
            self.detailsExchange = detailsExchange
            self.archive = archive
        }
    }

    let pipelines: PipelineService
    let catalogue: ProductCatalogue
    let place: Place
    let login: LoginRules
    let store: ReleaseStore
    let signatures: PhaseSignatureStore
    let revocations: Revocations
    let submissions: SubmissionStore
    let switches: SwitchStore
    let merges: MergeStore
    let decisions: DecisionTasks
    let manifests: (any ExtensionManifests)?
    let packages: PackageAddresses

    /// Opens releases beside the pipelines they are made of.
    public init(
        pipelines: PipelineService,
        catalogue: ProductCatalogue,
        place: Place,
        login: LoginRules,
        client: TaskclusterClient,
        transport: any HTTPTransport,
        manifests: (any ExtensionManifests)? = nil
    ) {
        self.pipelines = pipelines
        self.catalogue = catalogue
        self.place = place
        self.login = login
        self.manifests = manifests
        store = ReleaseStore(pool: pipelines.pipelineStore.pool)
        signatures = PhaseSignatureStore(pool: pipelines.pipelineStore.pool)
        revocations = Revocations(pool: pipelines.pipelineStore.pool)
        submissions = SubmissionStore(pool: pipelines.pipelineStore.pool, journal: pipelines.journal)
        switches = SwitchStore(pool: pipelines.pipelineStore.pool, journal: pipelines.journal)
        merges = MergeStore(pool: pipelines.pipelineStore.pool, journal: pipelines.journal)
        decisions = DecisionTasks(client: client, transport: transport)
        packages = PackageAddresses(client: client)
    }

    /// Who does what nobody has asked for at that moment, as the audit names it.
    static let actor = "shipit-releases"

    func now() -> Timestamp { pipelines.pipelineStore.now() }

    // MARK: - Reading

    func release(_ name: String) async throws -> Release {
        guard let release = try await store.find(name) else {
            throw StepProblem(404, "not_found", "Release \(name) not found")
        }
        return release
    }

    /// A release under its lock, whose pipeline is the one that a change works on; nil if there is none.
    func locked(_ name: String, _ change: StepTransaction) async throws -> Release? {
        guard let release = try await store.lock(name, on: change.connection) else { return nil }
        guard release.pipeline == nil || release.pipeline == change.step.id else {
            throw StepProblem.conflict(
                "pipeline_replaced",
                "The pipeline of \(name) was deleted; another one has its name"
            )
        }
        return release
    }

    func phase(_ name: String, of release: Release) throws(StepProblem) -> Release.Phase {
        guard let phase = release.phases.first(where: { $0.name == name }) else {
            throw StepProblem(404, "not_found", "\(release.name) has no phase \(name)")
        }
        return phase
    }

    func json(_ release: Release) async throws -> JSONValue {
        let steps = try await pipelines.steps(ofPipelines: [release.name])
        return .object(release.json(steps[release.name] ?? []))
    }

    /// Releases by product, and of each product the older ones first.
    func list(_ filter: ReleaseStore.Filter) async throws -> JSONValue {
        let found = try await store.list(filter)
        let sorted = found.compactMap { release in ReleaseVersion(release.version).map { (release, $0) } }
            .sorted { ($0.0.product, $0.1, $0.0.buildNumber) < ($1.0.product, $1.1, $1.0.buildNumber) }
            .map(\.0)
        let steps = try await pipelines.steps(ofPipelines: sorted.map(\.name))
        return .array(sorted.map { .object($0.json(steps[$0.name] ?? [])) })
    }

    // MARK: - Making

    /// What somebody asks to be released.
    struct Request: Sendable {
        var product: String
        var branch: String
        var version: String
        var revision: String
        var buildNumber: Int
        var releaseETA = ""
        var productKey: String?
        var repository: String?
        var partials: JSONValue?

        /// The name: only the first letter of the product is large.
        var name: String {
            "\(product.prefix(1).uppercased())\(product.dropFirst().lowercased())-\(version)-build\(buildNumber)"
        }
    }

    /// Makes a release and its pipeline; answers the release and what was left out.
    func create(_ request: Request, by caller: Caller) async throws -> (release: Release, warnings: [String]) {
        guard let version = ReleaseVersion(request.version) else {
            throw StepProblem.invalid("\(request.version) is no version")
        }
        let key = request.productKey ?? request.product
        guard let product = catalogue.product(key, version: version), !product.isLegacy, !product.phases.isEmpty else {
            throw StepProblem.invalid("Product \(key) versions are not supported", code: "unsupported_product")
        }
        if let problem = StepUID.problem(with: request.name) { throw StepProblem.invalid(problem) }
        guard try await store.find(request.name) == nil else { throw Self.duplicate(request.name) }
        let project = request.branch.split(separator: "/").last.map(String.init) ?? ""
        let decision = try await decisions.decision(product, project: project, revision: request.revision)
        let phases = product.phases.filter { decision.flavors.contains($0) }
        let missing = product.phases.filter { !decision.flavors.contains($0) }
        guard !phases.isEmpty else {
            throw StepProblem.invalid(
                "Some flavors are not in actions.json: \(missing.joined(separator: ", "))",
                code: "unsupported_flavor"
            )
        }
        var input: JSONObject = [
            "build_number": JSONValue(request.buildNumber), "next_version": .string(version.next.text),
            "version": .string(request.version), "release_eta": .string(request.releaseETA),
        ]
        if let partials = try await partials(request, product) { input["partial_updates"] = partials }
        let release = Release(
            id: 0,
            name: request.name,
            product: request.product,
            productKey: request.productKey,
            branch: request.branch,
            version: request.version,
            buildNumber: request.buildNumber,
            revision: request.revision,
            repository: request.repository ?? product.repository,
            releaseETA: request.releaseETA,
            decisionTask: decision.task,
            input: input,
            status: .scheduled,
            created: now(),
            phases: phases.map { Release.Phase(name: $0) },
            allowsSkipping: product.allowsPhaseSkipping(project)
        )
        try await insert(release, product, by: caller)
        let warnings = missing.map { "\($0) is left out: the source does not know it" }
        return (try await self.release(release.name), warnings)
    }

    static func duplicate(_ name: String) -> StepProblem {
        StepProblem(400, "duplicate_release", "There is a release \(name) already")
    }

    func insert(_ release: Release, _ product: Product, by caller: Caller) async throws {
        let slots = release.phases.flatMap { phase in
            product.signoffs[phase.name, default: []].map { slot in
                Signoff(
                    uid: Slugid.make(),
                    phase: phase.name,
                    name: slot.name,
                    description: slot.description,
                    permissions: slot.permissions
                )
            }
        }
        let steps = release.phases.map { phase -> JSONValue in
            [
                "uid": .string(phase.name), "api_url": .string(place.taskclusterSteps), "manual": true,
                "description": .string("\(phase.name) of \(release.name)"),
            ]
        }
        let definition: JSONObject = [
            "description": .string("The phases of \(release.name)"),
            "labels": ["product": .string(release.product), "branch": .string(release.branch)],
            "namespace_steps": true, "notify": product.notify, "parameters": ["steps": .array(steps)],
        ]
        do {
            _ = try await pipelines.create(
                definition,
                uid: release.name,
                origin: StepOrigin(actor: caller.name)
            ) { change in
                let id = try await store.insert(
                    release,
                    slots,
                    by: caller,
                    pipeline: change.step.id,
                    on: change.connection
                )
                guard id != nil else { throw Self.duplicate(release.name) }
            }
        } catch let problem as StepProblem where problem.code == "definition_differs" {
            throw Self.duplicate(release.name)
        }
        // A pipeline of that name and definition may have been there without a release.
        guard try await store.find(release.name) != nil else { throw Self.duplicate(release.name) }
    }

    /// The earlier releases that a release updates from; `auto` takes the newest that were shipped.
    private func partials(_ request: Request, _ product: Product) async throws -> JSONValue? {
        guard let wanted = request.partials, !wanted.isNull else { return nil }
        guard wanted == "auto" else {
            guard wanted.object != nil else {
                throw StepProblem.invalid("partial_updates has to be auto, or versions with buildNumber and locales")
            }
            return wanted
        }
        var filter = ReleaseStore.Filter(product: request.product, branch: request.branch)
        filter.statuses = [.shipped]
        let shipped = try await store.list(filter)
            .compactMap { release in ReleaseVersion(release.version).map { (release, $0) } }
            .sorted { $0.1 > $1.1 }
            .prefix(3)
        var partials: JSONObject = [:]
        for (release, _) in shipped {
            var locales: [String] = []
            if let application = Self.application(request.product) {
                let repository = "\(place.repositories)/\(release.branch)"
                locales = try await decisions.locales(application, repository: repository, revision: release.revision)
            }
            partials[release.version] = [
                "buildNumber": JSONValue(release.buildNumber), "locales": JSONValue(locales),
            ]
        }
        return partials.isEmpty ? nil : .object(partials)
    }

    /// The folder of a product in its source.
    static func application(_ product: String) -> String? {
        switch product {
        case "firefox", "devedition": "browser"
        case "thunderbird": "mail"
        default: nil
        }
    }
}
