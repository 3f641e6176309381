// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import StepKit

/// Releases of extensions, whose kind says who may do what.
extension ReleasesAPI {
    var extensions: [Endpoint] {
        let one = "/xpi/releases/<name>"
        let signoff = "/xpi/signoff/<name>/<phase>"
        let query: [String: QueryRule] = [
            "xpi_name": .any, "xpi_version": .any, "build_number": "^[0-9]{1,6}$", "status": .words,
        ]
        return [
            make.open(.get, "/xpi/releases", name: "xpis", query: query, title: "List", handler: listExtensions),
            make.open(.post, "/xpi/releases", name: "addXPI", title: "Release an extension", handler: addExtension),
            make.open(.get, one, name: "xpi", title: "Read the release of an extension") { request in
                .json(try await service.json(ofExtension: request.parameter("name")))
            },
            make.open(.patch, one, name: "setXPIStatus", title: "Say how it stands") { request in
                try await ofExtension(request, patch)
            },
            make.open(.delete, one, name: "abandonXPI", title: "Give it up") { request in
                try await ofExtension(request, abandon)
            },
            make.open(.get, "\(one)/<phase>", name: "xpiPhase", title: "Read a phase") { request in
                _ = try await service.extensionRelease(request.parameter("name"))
                return .json(try await service.json(phase: request.parameter("phase"), of: request.parameter("name")))
            },
            make.open(.put, "\(one)/<phase>", name: "callXPI", title: "Call for a phase") { request in
                _ = try await service.extensionRelease(request.parameter("name"))
                return try await schedule(request)
            },
            make.open(.get, signoff, name: "xpiSignoffs", title: "Read its signatures") { request in
                _ = try await service.extensionRelease(request.parameter("name"))
                return try await signatures(request)
            },
            make.open(.put, signoff, name: "signXPI", title: "Sign a phase") { request in
                _ = try await service.extensionRelease(request.parameter("name"))
                return try await sign(request)
            },
            make.open(.delete, signoff, name: "unsignXPI", title: "Take a signature back") { request in
                _ = try await service.extensionRelease(request.parameter("name"))
                return try await unsign(request)
            },
        ]
    }

    /// Does to the release of an extension what is done to others, and answers it as its clients know it.
    private func ofExtension(
        _ request: APIRequest,
        _ action: (APIRequest) async throws -> APIResponse
    ) async throws -> APIResponse {
        let name = request.parameter("name")
        _ = try await service.extensionRelease(name)
        _ = try await action(request)
        return .json(try await service.json(ofExtension: name))
    }

    private func listExtensions(_ request: APIRequest) async throws -> APIResponse {
        var filter = try filter(request, version: "xpi_version")
        filter.extensions = .named(request.query["xpi_name"])
        return .json(try await service.listExtensions(filter))
    }

    private func addExtension(_ request: APIRequest) async throws -> APIResponse {
        let caller = try await caller(request)
        let body = try request.jsonObject()
        guard let number = body["build_number"]?.int, (1...100_000).contains(number) else {
            throw StepProblem.invalid("build_number has to be a number from 1 on")
        }
        let wanted = ReleaseService.ExtensionRequest(
            name: try body.text("xpi_name"),
            revision: try body.text("xpi_revision"),
            version: try body.text("xpi_version"),
            buildNumber: number,
            manifests: try body.text("revision")
        )
        let kind = try await service.kind(of: wanted)
        let product = Extension.product(kind)
        try caller.require("add_release", product, groups: groups(product))
        try await service.create(wanted, kind: kind, by: caller)
        return .json(try await service.json(ofExtension: wanted.release), status: 201)
    }
}
