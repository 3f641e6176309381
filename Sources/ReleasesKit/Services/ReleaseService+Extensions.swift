// SPDX-License-Identifier: MPL-2.0

import JSON
import PipelineKit
import StepKit

extension ReleaseService {
    /// What somebody asks to be released of an extension.
    struct ExtensionRequest: Sendable {
        var name: String
        var revision: String
        var version: String
        var buildNumber: Int
        /// The revision of the manifests.
        var manifests: String

        var release: String { "\(name)-\(version)-build\(buildNumber)" }
    }

    /// The release of an extension; those of products are none.
    func extensionRelease(_ name: String) async throws -> (release: Release, extension: Extension) {
        let release = try await release(name)
        guard let found = release.extension else { throw StepProblem(404, "not_found", "Release \(name) not found") }
        return (release, found)
    }

    func json(ofExtension name: String) async throws -> JSONValue {
        let (release, found) = try await extensionRelease(name)
        return try await json(ofExtensions: [(release, found)])[0] ?? .null
    }

    /// Releases as their clients know them; phases that are done tell where the package is that they have signed.
    private func json(ofExtensions found: [(release: Release, extension: Extension)]) async throws -> JSONValue {
        let steps = try await pipelines.steps(ofPipelines: found.map(\.release.name))
        let done = found.flatMap { release, _ in
            release.phases.compactMap { phase -> String? in
                guard phase.name == Extension.signingPhase else { return nil }
                let step = steps[release.name]?.first { $0.uid == phase.name && $0.state == "completed" }
                return step?.info["task_id"]?.string
            }
        }
        let packages = await packages.addresses(of: done, at: now())
        return .array(found.map { .object($0.release.json($0.extension, steps[$0.release.name] ?? [], packages)) })
    }

    /// The releases of extensions, oldest first.
    func listExtensions(_ filter: ReleaseStore.Filter) async throws -> JSONValue {
        let found = try await store.list(filter)
        return try await json(ofExtensions: found.compactMap { release in release.extension.map { (release, $0) } })
    }

    /// The kind of an extension, which the manifests tell.
    func kind(of request: ExtensionRequest) async throws -> String {
        guard catalogue.extensions != nil else {
            throw StepProblem.invalid("Extensions are not released here", code: "unsupported_product")
        }
        guard let kind = try await manifests?.kind(of: request.name, at: request.manifests) else {
            throw StepProblem.invalid("There is no extension \(request.name) at \(request.manifests)", code: "no_xpi")
        }
        return kind
    }

    /// Makes the release of an extension and its pipeline, with a phase for everything that the source can do.
    func create(_ request: ExtensionRequest, kind: String, by caller: Caller) async throws {
        guard let product = catalogue.product(Extension.product(kind)), let project = catalogue.extensions else {
            throw StepProblem.invalid("Extensions of the kind \(kind) are not supported", code: "unsupported_product")
        }
        if let problem = StepUID.problem(with: request.release) { throw StepProblem.invalid(problem) }
        guard try await store.find(request.release) == nil else { throw Self.duplicate(request.release) }
        let decision = try await decisions.decision(product, project: project, revision: request.manifests)
        guard !decision.flavors.isEmpty else {
            throw StepProblem.invalid("The source can do nothing with \(request.name)", code: "unsupported_flavor")
        }
        let input: JSONObject = [
            "build_number": JSONValue(request.buildNumber), "xpi_name": .string(request.name),
            "revision": .string(request.revision), "version": .string(request.version),
        ]
        let release = Release(
            id: 0,
            name: request.release,
            product: product.name,
            productKey: nil,
            branch: project,
            version: request.version,
            buildNumber: request.buildNumber,
            revision: request.manifests,
            repository: product.repository,
            releaseETA: "",
            decisionTask: decision.task,
            input: input,
            status: .scheduled,
            created: now(),
            phases: decision.flavors.map { Release.Phase(name: $0) },
            allowsSkipping: false,
            extension: Extension(
                name: request.name,
                revision: request.revision,
                version: request.version,
                type: kind
            )
        )
        try await insert(release, product, by: caller)
    }
}
