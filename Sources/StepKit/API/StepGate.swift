// SPDX-License-Identifier: MPL-2.0

public import APIServer
import Logging
public import Taskcluster

/// Whoever a request comes from, as the audit names them.
public struct StepActor: Sendable, Hashable {
    /// The client or the person.
    public let name: String
    /// What they may do.
    public let scopes: [String]

    /// Somebody without credentials, where that is enough.
    static let anyone = StepActor(name: "anonymous", scopes: [])
}

/// Decides who may do what with the steps of a service.
///
/// Taskcluster's credentials and scopes open everything; the token of any person opens what is only read.
public struct StepGate: Sendable {
    /// The service's part of scopes, such as `shipit_signoff`.
    public let service: String
    /// Whose tokens are accepted for reading; nil for nobody's.
    public let tokens: TokenVerifier?
    /// Whether everybody may read.
    public let isPublic: Bool

    /// Makes the gate of a service.
    public init(service: String, tokens: TokenVerifier?, isPublic: Bool) {
        self.service = service
        self.tokens = tokens
        self.isPublic = isPublic
    }

    /// The scopes of which one is enough for an action on a step.
    public func expression(_ verb: String, _ uid: String?) -> ScopeExpression {
        let scope = "project:releng:services/\(service)/\(verb)"
        return .anyOf([.scope(scope)] + (uid.map { [.scope("\(scope)/\($0)")] } ?? []))
    }

    /// Whoever asks, if they may do what they ask for.
    public func admit(_ request: APIRequest, _ verb: String, _ uid: String?) async throws -> StepActor {
        let header = request.header("authorization")
        let isReading = verb == "view"
        if isReading, isPublic {
            // Where everybody may read, credentials are for what only administrators read.
            guard header != nil, !TokenVerifier.isBearer(header) else { return .anyone }
            try await request.authenticate()
            return request.clientID.map { StepActor(name: $0, scopes: request.scopes) } ?? .anyone
        }
        if TokenVerifier.isBearer(header) {
            guard isReading else {
                throw Self.refusal("taskcluster_required", "This needs Taskcluster credentials, not a person's token")
            }
            guard let tokens else { throw Self.refusal("invalid_header", "Tokens of people are not accepted here") }
            let person = try await tokens.recentPerson(header)
            guard !person.isMachine else {
                throw Self.refusal("human_required", "Machines need Taskcluster credentials, not a token")
            }
            return StepActor(name: person.name, scopes: [])
        }
        try await request.identify()
        let needed = expression(verb, uid)
        guard let client = request.clientID else {
            if isReading, needed.isSatisfied(by: request.scopes) { return .anyone }
            throw Self.refusal("authorization_header_missing", "This needs Taskcluster credentials")
        }
        guard needed.isSatisfied(by: request.scopes) else {
            throw StepProblem(
                403,
                "insufficient_scopes",
                "\(client) lacks the scopes for this",
                members: ["required": needed.json]
            )
        }
        return StepActor(name: client, scopes: request.scopes)
    }

    /// Whether somebody who was admitted may do more.
    public func permits(_ actor: StepActor, _ verb: String, _ uid: String?) -> Bool {
        expression(verb, uid).isSatisfied(by: actor.scopes)
    }

    private static func refusal(_ code: String, _ text: String) -> StepProblem {
        StepProblem(
            401,
            code,
            text,
            members: ["description": .string(text)],
            headers: ["WWW-Authenticate": "Hawk"]
        )
    }
}

extension APIRequest {
    /// Finds out who calls, by their signature; when nobody can tell that right now, the caller is to come back.
    public func identify() async throws {
        do {
            try await authenticate()
        } catch let error as APIError {
            throw error
        } catch is CancellationError {
            throw CancellationError()
        } catch {
            Logger.current.warning("credentials cannot be verified", metadata: ["error": "\(error)"])
            throw StepProblem(
                503,
                "authentication_unavailable",
                "Credentials cannot be verified now",
                headers: ["Retry-After": "2"]
            )
        }
    }
}
