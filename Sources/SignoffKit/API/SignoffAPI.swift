// SPDX-License-Identifier: MPL-2.0

public import APIServer
import JSON
public import StepKit

/// The API of sign-offs: the step contract, and what people do with a step.
public struct SignoffAPI: Sendable {
    private let steps: StepAPI<SignoffService>
    private let service: SignoffService
    private let tokens: TokenVerifier
    private let login: LoginPage?

    /// Puts the API in front of a service; tokens tell who signs, and the page for logging in is where they get them.
    public init(service: SignoffService, tokens: TokenVerifier, isPublic: Bool, login: LoginPage? = nil) {
        self.login = login
        self.service = service
        self.tokens = tokens
        steps = StepAPI(
            service: service,
            store: service.store,
            gate: StepGate(service: "shipit_signoff", tokens: tokens, isPublic: isPublic)
        )
    }

    /// The whole API.
    public func api(schemas: SchemaStore) -> API {
        var more: [Endpoint] = []
        for base in ["", "/step"] {
            let suffix = base.isEmpty ? "" : "Alias"
            more += [
                steps.endpoints.open(.put, "\(base)/<uid>/sign", name: "sign\(suffix)", title: "Sign", handler: sign),
                steps.endpoints.open(
                    .delete,
                    "\(base)/<uid>/sign",
                    name: "unsign\(suffix)",
                    title: "Take a signature back",
                    handler: unsign
                ),
                steps.endpoints.open(
                    .post,
                    "\(base)/<uid>/reject",
                    name: "reject\(suffix)",
                    title: "Reject",
                    handler: reject
                ),
                steps.endpoints.endpoint(
                    .get,
                    "\(base)/<uid>/signatures",
                    name: "signatures\(suffix)",
                    verb: "view",
                    query: ["deleted": .bool],
                    title: "List signatures",
                    handler: signatures
                ),
                steps.endpoints.endpoint(
                    .post,
                    "\(base)/<uid>/signatures/<id>/revoke",
                    name: "revoke\(suffix)",
                    verb: "admin/revoke",
                    title: "Revoke a signature",
                    handler: revoke
                ),
            ]
        }
        more += [
            steps.endpoints.open(
                .get,
                "/login",
                name: "login",
                query: ["callback_url": .any, "state": .any, "nonce": .any, "code_challenge": .any],
                title: "Log in"
            ) { [login] request in
                guard let login else {
                    throw StepProblem(404, "not_found", "This service knows no page for logging in")
                }
                return .bodyless(302, headers: ["Location": try login.address(request.query)])
            },
            steps.endpoints.open(
                .get,
                "/pending",
                name: "pending",
                query: ["for": "^me$"],
                title: "List what the caller could sign",
                handler: pending
            ),
            steps.endpoints.endpoint(
                .post,
                "/validate_policy",
                name: "validatePolicy",
                verb: "view",
                title: "Check a policy",
                handler: validatePolicy
            ),
            steps.endpoints.endpoint(
                .post,
                "/admin/revocations",
                name: "revocations",
                verb: "admin/revoke",
                title: "Revoke what a person has signed",
                handler: revocations
            ),
            steps.endpoints.endpoint(
                .get,
                "/admin/revocations",
                name: "revocationList",
                verb: "admin/revoke",
                query: ["limit": .limit, "continuationToken": .continuationToken, "verify": .bool],
                title: "List who was revoked",
                handler: listRevocations
            ),
        ]
        return steps.api(schemas: schemas, adding: more)
    }

    // MARK: - People

    /// The person who asks; anything but a person's token is refused.
    private func person(_ request: APIRequest) async throws -> Person {
        let header = request.header("authorization")
        guard header == nil || TokenVerifier.isBearer(header) || header?.prefix(5).lowercased() != "hawk " else {
            throw Self.humanRequired
        }
        let person = try await tokens.person(header)
        guard !person.isMachine else { throw Self.humanRequired }
        return person
    }

    private static let humanRequired = StepProblem(
        401,
        "human_required",
        "Only people sign, with a token of their own",
        headers: ["WWW-Authenticate": "Bearer"]
    )

    private static func group(_ body: JSONObject) throws(StepProblem) -> String {
        guard let group = body["group"]?.string, !group.isEmpty, group.utf8.count <= 320 else {
            throw StepProblem.invalid("group has to be the name of one of your groups")
        }
        return group
    }

    private func sign(_ request: APIRequest) async throws -> APIResponse {
        let person = try await person(request)
        let body = try request.jsonObject()
        try body.allowOnly(["group", "digest", "fields"])
        if let answer = try await atBalrog(request, person, body) { return answer }
        if let digest = body["digest"], digest.string == nil { throw StepProblem.invalid("digest has to be text") }
        let fields = body["fields"] ?? [:]
        guard let fields = fields.object, fields.count <= 50 else {
            throw StepProblem.invalid("fields has to be an object of up to 50 members")
        }
        let signing = SignoffService.Signing(
            group: try Self.group(body),
            digest: body["digest"]?.string,
            origin: SignatureStore.Origin(
                address: request.remoteAddress,
                agent: request.header("user-agent").map { String($0.prefix(200)) },
                fields: fields
            )
        )
        let step = try await service.sign(request.parameter("uid"), signing, by: person)
        return .json([:], headers: ["ETag": step.entityTag])
    }

    private func unsign(_ request: APIRequest) async throws -> APIResponse {
        let person = try await person(request)
        let body = try request.jsonObject()
        try body.allowOnly(["group"])
        if let answer = try await atBalrog(request, person, body) { return answer }
        let step = try await service.unsign(request.parameter("uid"), group: try Self.group(body), by: person)
        return .json([:], headers: ["ETag": step.entityTag])
    }

    /// Where to sign a step that Balrog decides about, told to those who hold the role; nil for other steps.
    ///
    /// Nothing is signed on anybody's behalf: people go there themselves, with what Balrog knows them by.
    private func atBalrog(
        _ request: APIRequest,
        _ person: Person,
        _ body: JSONObject
    ) async throws -> APIResponse? {
        guard let url = try await service.balrogURL(request.parameter("uid"), role: try Self.group(body), person) else {
            return nil
        }
        return .bodyless(307, headers: ["Location": url])
    }

    private func reject(_ request: APIRequest) async throws -> APIResponse {
        let person = try await person(request)
        let body = try request.jsonObject()
        try body.allowOnly(["group", "reason"])
        let step = try await service.reject(
            request.parameter("uid"),
            group: try Self.group(body),
            reason: try Self.reason(body),
            by: person
        )
        return .json(.object(step.status), headers: ["ETag": step.entityTag])
    }

    private static func reason(_ body: JSONObject) throws(StepProblem) -> String {
        guard let reason = body["reason"]?.string, !reason.isEmpty else {
            throw StepProblem.invalid("reason has to say why")
        }
        return String(reason.prefix(2000))
    }

    private func pending(_ request: APIRequest) async throws -> APIResponse {
        let steps = try await service.pending(for: try await person(request))
        return .json(["steps": .array(steps.map { .object($0.status) })])
    }

    // MARK: - Reading

    private func signatures(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let uid = request.parameter("uid")
        let isBuried = request.flag("deleted")
        if isBuried, !steps.endpoints.gate.permits(actor, "admin/audit", uid) {
            throw StepProblem(403, "insufficient_scopes", "What was deleted is for administrators")
        }
        guard let step = try await service.store.load(uid, buried: isBuried) else { throw StepProblem.unknown(uid) }
        let rows = try await service.signatures.all(step.id)
        return .json(["signatures": .array(rows.map { .object($0.json) })])
    }

    private func validatePolicy(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let body = try request.jsonObject()
        do {
            let policy = try service.checked(body["policy"] ?? .object(body))
            var warnings: [String] = []
            if policy.requiresSecondFactor == false { warnings.append("people may sign without a second factor") }
            let people = policy.conditions.map { $0.reduce(0) { $0 + $1.count } }
            if people.contains(1) { warnings.append("one person alone can complete the step") }
            return .json(["ok": true, "warnings": JSONValue(warnings)])
        } catch {
            var problem = error
            problem.status = 422
            throw problem
        }
    }

    // MARK: - Administration

    private func revoke(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let body = try request.jsonObject()
        try body.allowOnly(["reason"])
        guard let id = Int(request.parameter("id")) else {
            throw StepProblem(404, "not_found", "There is no such signature")
        }
        let step = try await service.revoke(
            request.parameter("uid"),
            by: actor.name,
            reason: try Self.reason(body)
        ) { $0.id == id }
        return .json(.object(step.status), headers: ["ETag": step.entityTag])
    }

    private func revocations(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let body = try request.jsonObject()
        try body.allowOnly(["sub", "email", "reason"])
        let subject = body["sub"]?.string
        let email = body["email"]?.string?.lowercased()
        guard (subject == nil) != (email == nil), (1...320).contains((subject ?? email ?? "").utf8.count) else {
            throw StepProblem.invalid("Name one person, by sub or by email")
        }
        let (revocation, revoked, unchanged) = try await service.revokeAll(
            subject: subject,
            email: email,
            by: actor.name,
            reason: try Self.reason(body)
        )
        return .json([
            "revocation": JSONValue(revocation.sequence), "revoked": JSONValue(revoked),
            "unchanged": JSONValue(unchanged),
        ])
    }

    /// The audit of revocations, oldest first; with `verify`, also whether somebody has changed it.
    private func listRevocations(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let revocations = service.signatures.revocations
        return try await StepAPI<SignoffService>.audit(
            request,
            brokenLink: { try await revocations.brokenLink() },
            events: { try await revocations.events(after: $0, limit: $1) }
        )
    }
}
