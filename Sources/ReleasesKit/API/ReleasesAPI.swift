// SPDX-License-Identifier: MPL-2.0

public import APIServer
import JSON
import Schedules
public import StepKit
public import Taskcluster

/// The API of releases and their phases, as the scripts and people of the original know it.
public struct ReleasesAPI: Sendable {
    let service: ReleaseService
    let tokens: TokenVerifier?
    let make: StepEndpoints
    let authenticator: any RequestAuthenticator

    /// Puts the API in front of a service; tokens tell which person asks.
    public init(service: ReleaseService, tokens: TokenVerifier?, authenticator: any RequestAuthenticator) {
        self.service = service
        self.tokens = tokens
        self.authenticator = authenticator
        make = StepEndpoints(gate: StepGate(service: "shipit_api", tokens: tokens, isPublic: true))
    }

    /// Everything that is served beside the pipelines.
    public var endpoints: [Endpoint] { releases + signoffs + switches + merges + submissions + extensions }

    private var releases: [Endpoint] {
        let query: [String: QueryRule] = [
            "product": .any, "branch": .any, "version": .any, "build_number": "^[0-9]{1,6}$", "status": .words,
        ]
        return [
            make.open(.get, "/releases", name: "releases", query: query, title: "List releases", handler: list),
            make.open(.post, "/releases", name: "addRelease", title: "Add a release", handler: add),
            make.open(.get, "/releases/<name>", name: "release", title: "Read a release") { request in
                .json(try await service.json(service.release(request.parameter("name"))))
            },
            make.open(.patch, "/releases/<name>", name: "setStatus", title: "Say how it stands", handler: patch),
            make.open(.delete, "/releases/<name>", name: "abandon", title: "Give a release up", handler: abandon),
            make.open(.get, "/releases/<name>/<phase>", name: "phase", title: "Read a phase") { request in
                .json(try await service.json(phase: request.parameter("phase"), of: request.parameter("name")))
            },
            make.open(.put, "/releases/<name>/<phase>", name: "schedule", title: "Call for a phase", handler: schedule),
        ]
    }

    private var signoffs: [Endpoint] {
        let route = "/signoff/<name>/<phase>"
        return [
            make.open(.get, route, name: "signoffs", title: "Read the signatures of a phase") { request in
                try await signatures(request)
            },
            make.open(.put, route, name: "signPhase", title: "Sign a phase", handler: sign),
            make.open(.delete, route, name: "unsignPhase", title: "Take a signature back", handler: unsign),
            make.open(
                .post,
                "\(route)/revoke",
                name: "revokePhase",
                title: "Take somebody's signature out of a slot",
                handler: revoke
            ),
        ]
    }

    private static func answer(_ signoffs: [Signoff], _ digest: [UInt8]? = nil) -> APIResponse {
        let json: JSONValue = ["signoffs": .array(signoffs.map(\.json))]
        return .json(json, headers: digest.map { ["ETag": ReleaseService.tag($0)] } ?? [:])
    }

    func signatures(_ request: APIRequest) async throws -> APIResponse {
        let found = try await service.signoffs(request.parameter("phase"), of: request.parameter("name"))
        return Self.answer(found.signoffs, found.digest)
    }

    // MARK: - Who asks

    /// The caller, who has to show credentials of some kind.
    func caller(_ request: APIRequest) async throws -> Caller {
        if request.query["access_token"] != nil {
            throw StepProblem.invalid("Credentials belong into the Authorization header")
        }
        let header = request.header("authorization")
        if TokenVerifier.isBearer(header) {
            guard let tokens else { throw Self.unauthorized("Tokens of people are not accepted here") }
            let person = try await tokens.person(header)
            guard !person.isMachine else { throw Self.machine }
            return .person(person)
        }
        try await request.identify()
        guard let client = request.clientID else { throw Self.unauthorized("This needs credentials") }
        return .client(name: client, scopes: request.scopes)
    }

    static func unauthorized(_ text: String) -> StepProblem {
        StepProblem(401, "authorization_header_missing", text, headers: ["WWW-Authenticate": "Hawk"])
    }

    /// The groups whose people may do things to a product.
    func groups(_ product: String) -> Set<String> { service.catalogue.product(product)?.groups ?? [] }

    /// Refuses a caller who may not do something to a product that is released by the rules of the one that a key names.
    ///
    /// A person has to belong to both, as far as both are known: a key lends nobody the rights of another product.
    private func require(
        _ caller: Caller,
        _ verb: String,
        _ path: String = "",
        of product: String,
        by key: String?
    ) throws(StepProblem) {
        let known = [product, key].compactMap(\.self).filter { service.catalogue.product($0) != nil }
        guard !known.isEmpty else { return try caller.require(verb, path) }
        for name in known { try caller.require(verb, path, groups: groups(name)) }
    }

    // MARK: - Releases

    private func list(_ request: APIRequest) async throws -> APIResponse {
        var filter = try filter(request, version: "version")
        filter.product = request.query["product"]
        filter.branch = request.query["branch"]
        return .json(try await service.list(filter))
    }

    /// What lists of all kinds of releases can be narrowed to.
    func filter(_ request: APIRequest, version: String) throws(StepProblem) -> ReleaseStore.Filter {
        var filter = ReleaseStore.Filter()
        filter.version = request.query[version]
        filter.buildNumber = request.query["build_number"].flatMap { Int($0) }
        if filter.buildNumber != nil, filter.version == nil {
            throw StepProblem.invalid("Filtering by build_number without version is not supported.")
        }
        if let words = request.query["status"] {
            filter.statuses = []
            for word in words.split(separator: ",") {
                guard let status = Release.Status(rawValue: String(word)) else {
                    throw StepProblem.invalid("No status is called \(word)")
                }
                filter.statuses.append(status)
            }
        }
        return filter
    }

    private func add(_ request: APIRequest) async throws -> APIResponse {
        let caller = try await caller(request)
        let body = try request.jsonObject()
        let product = try body.text("product")
        let branch = try body.text("branch")
        try require(caller, "add_release", product, of: product, by: body["product_key"]?.string)
        try await checkEnabled(product, branch, for: caller)
        guard let number = body["build_number"]?.int, (1...100_000).contains(number) else {
            throw StepProblem.invalid("build_number has to be a number from 1 on")
        }
        let wanted = ReleaseService.Request(
            product: product,
            branch: branch,
            version: try body.text("version"),
            revision: try body.text("revision"),
            buildNumber: number,
            releaseETA: body["release_eta"]?.string ?? "",
            productKey: body["product_key"]?.string,
            repository: body["repo_url"]?.string,
            partials: body["partial_updates"]
        )
        let (release, warnings) = try await service.create(wanted, by: caller)
        var json = try await service.json(release)
        if !warnings.isEmpty { json["warnings"] = JSONValue(warnings) }
        return .json(json, status: 201)
    }

    /// Refuses scripts that release something of a branch that is disabled for them.
    func checkEnabled(_ product: String, _ branch: String, for caller: Caller) async throws {
        guard caller.isClient else { return }
        let disabled = try await service.switches.disabled()[product] ?? []
        guard disabled.contains(branch) || disabled.contains("") else { return }
        throw StepProblem(401, "product_disabled", "Taskcluster based submissions are disabled")
    }

    func schedule(_ request: APIRequest) async throws -> APIResponse {
        let caller = try await caller(request)
        let (name, phase) = (request.parameter("name"), request.parameter("phase"))
        let release = try await service.release(name)
        let path = "\(release.product)/\(phase)"
        try require(caller, "schedule_phase", path, of: release.product, by: release.productKey)
        return .json(try await service.schedule(phase, of: name, by: caller))
    }

    func patch(_ request: APIRequest) async throws -> APIResponse {
        let caller = try await caller(request)
        let name = request.parameter("name")
        let release = try await service.release(name)
        try require(caller, "update_release_status", of: release.product, by: release.productKey)
        guard let word = try request.jsonObject()["status"]?.string, let status = Release.Status(rawValue: word) else {
            throw StepProblem.invalid("status has to be scheduled, shipped or aborted")
        }
        return .json(try await service.setStatus(status, name, by: caller))
    }

    func abandon(_ request: APIRequest) async throws -> APIResponse {
        let caller = try await caller(request)
        let release = try await service.release(request.parameter("name"))
        try require(caller, "abandon_release", release.product, of: release.product, by: release.productKey)
        return .json(try await service.abandon(release.name, by: caller))
    }

    // MARK: - Signing

    func sign(_ request: APIRequest) async throws -> APIResponse {
        let person = try await person(request)
        let signed = try await service.sign(
            try Self.slot(request),
            phase: request.parameter("phase"),
            of: request.parameter("name"),
            by: person,
            match: request.match,
            from: PhaseSignatureStore.Origin(
                address: request.remoteAddress,
                agent: request.header("user-agent").map { String($0.prefix(200)) }
            )
        )
        return Self.answer(signed)
    }

    func unsign(_ request: APIRequest) async throws -> APIResponse {
        let person = try await person(request)
        let (name, phase) = (request.parameter("name"), request.parameter("phase"))
        return Self.answer(try await service.unsign(try Self.slot(request), phase: phase, of: name, by: person))
    }

    func revoke(_ request: APIRequest) async throws -> APIResponse {
        let caller = try await caller(request)
        try caller.require("admin")
        let body = try request.jsonObject()
        try body.allowOnly(["uid", "reason"])
        let revoked = try await service.revoke(
            try body.text("uid"),
            phase: request.parameter("phase"),
            of: request.parameter("name"),
            by: caller.name,
            reason: try body.text("reason")
        )
        return Self.answer(revoked)
    }

    /// The person who asks; neither clients nor machines are persons.
    private func person(_ request: APIRequest) async throws -> Person {
        guard case .person(let person) = try await caller(request) else { throw Self.machine }
        return person
    }

    private static let machine = StepProblem(
        401,
        "human_required",
        "Only people sign, with a token of their own",
        headers: ["WWW-Authenticate": "Bearer"]
    )

    /// The slot that the body names, which is nothing but that name.
    private static func slot(_ request: APIRequest) throws(StepProblem) -> String {
        let body: JSONValue
        do {
            body = try JSONValue(parsing: request.rawBody)
        } catch {
            throw StepProblem.invalid("The body is not JSON: \(error.message)", code: "malformed_payload")
        }
        guard let uid = body.string else { throw StepProblem.invalid("The body has to be the uid of a signoff") }
        return uid
    }
}

extension JSONObject {
    /// A member that has to be a text, and not an empty one.
    func text(_ name: String) throws(StepProblem) -> String {
        guard let text = self[name]?.string, !text.isEmpty, text.utf8.count <= 500 else {
            throw StepProblem.invalid("\(name) has to be a text")
        }
        return text
    }
}
