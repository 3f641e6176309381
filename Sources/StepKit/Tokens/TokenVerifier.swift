// SPDX-License-Identifier: MPL-2.0

import Core
import Crypto
public import HTTPClient
import JSON
public import Schedules

/// What tokens have to say to be accepted.
public struct TokenRules: Sendable {
    /// The claim, and the member of key sets, by which issuers for tests are known.
    static let testIssuerClaim = "urn:slipway:test-issuer"

    /// The issuer, exactly as tokens spell it.
    public var issuer: String
    /// Who the tokens have to be for.
    public var audience: String
    /// The clients that may have asked for a token with several audiences.
    public var clients: Set<String>
    /// The accepted signature algorithms.
    public var algorithms: Set<TokenAlgorithm> = [.rs256]
    /// How far clocks may disagree.
    public var leeway: Duration = .seconds(60)
    /// The longest life of a token.
    public var longestLife: Duration = .seconds(86_400)
    /// The claim with the groups of a person.
    public var groupsClaim = "https://sso.mozilla.com/claim/groups"
    /// The claim with the methods by which a person has logged in, for access tokens that lack `amr`.
    public var methodsClaim: String?
    /// The methods that count as a second factor.
    public var secondFactors: Set<String> = ["mfa"]
    /// Whether issuers for tests are refused.
    public var refusesTestIssuers = true
    /// What tokens are good for that say nothing themselves, and whose owner the issuer has to be asked for.
    public var opaqueTokens = OpaqueTokens.nothing

    /// Names the issuer and the audience.
    public init(issuer: String, audience: String, clients: Set<String> = []) {
        self.issuer = issuer
        self.audience = audience
        self.clients = clients
    }
}

/// What opaque tokens are good for.
///
/// An issuer vouches for their owners without saying for whom or for what the tokens were made, so that a token made for another
/// service works here, too: they are weaker than signed ones.
public enum OpaqueTokens: Sendable, Hashable {
    /// For nothing.
    case nothing
    /// For reading.
    case reading
    /// For all that a person's token is needed for.
    case everything
}

/// Somebody an issuer vouches for.
public struct Person: Sendable, Hashable {
    /// The issuer's name for the person, the same whatever address they use.
    public let subject: String
    /// Their verified address in lower case.
    public let email: String?
    /// The groups they belong to.
    public let groups: Set<String>
    /// The methods by which they have logged in.
    public let methods: [String]
    /// Whether a second factor was among them.
    public let usedSecondFactor: Bool
    /// When the token was issued, if it says so.
    public let issued: Timestamp?
    /// When they have logged in.
    public let authenticated: Timestamp?
    /// When the token expires.
    public let expires: Timestamp
    /// Whether the token belongs to a machine that got it without a person.
    public let isMachine: Bool
    /// Who vouches.
    public let issuer: String
    /// The token's own name.
    public let tokenID: String?
    /// The digest of the token.
    public let tokenDigest: [UInt8]

    /// What the audit calls them.
    public var name: String { email ?? subject }
}

/// Tells whose token a request carries.
public struct TokenVerifier: Sendable {
    /// What tokens have to say.
    public let rules: TokenRules
    private let keys: KeySet
    private let directory: UserDirectory
    private let now: @Sendable () -> Timestamp
    private let known = KnownPersons()

    /// Prepares to verify tokens of an issuer whose keys are at a URL.
    public init(
        rules: TokenRules,
        keysURL: String,
        transport: any HTTPTransport,
        now: @escaping @Sendable () -> Timestamp = { .now() }
    ) {
        self.rules = rules
        self.now = now
        directory = UserDirectory(url: "\(rules.issuer)userinfo", transport: transport, now: now)
        keys = KeySet(url: keysURL, transport: transport, refusesTestIssuers: rules.refusesTestIssuers, now: now)
    }

    /// Whether a header field brings a token rather than a signature of Taskcluster's kind.
    public static func isBearer(_ header: String?) -> Bool {
        header?.prefix(7).lowercased() == "bearer "
    }

    /// The person whose token an `Authorization` field brings; everything that is not quite right is a refusal.
    public func person(_ header: String?) async throws(StepProblem) -> Person {
        let text = try Self.token(header)
        guard !SignedToken.isOpaque(text) else {
            guard rules.opaqueTokens == .everything else { throw TokenProblem.opaque }
            return try await owner(text)
        }
        let token = try SignedToken(text, algorithms: rules.algorithms)
        let key = try await keys.key(token.keyID, for: token.algorithm)
        guard key.verifies(token.signature, of: token.signedBytes, by: token.algorithm) else {
            throw TokenProblem.signature
        }
        try check(token.claims)
        return try person(token.claims, digest: Array(SHA256.hash(data: Array(text.utf8))))
    }

    /// The same, for what needs no fresh look: a token that was verified within the last half minute is taken at its word,
    /// unless it has expired since.
    public func recentPerson(_ header: String?) async throws(StepProblem) -> Person {
        let text = try Self.token(header)
        guard !SignedToken.isOpaque(text) else {
            guard rules.opaqueTokens != .nothing else { throw TokenProblem.opaque }
            return try await owner(text)
        }
        let digest = Array(SHA256.hash(data: Array(text.utf8)))
        if let person = known.person(digest, at: now()) { return person }
        let person = try await person(header)
        known.remember(person, digest, at: now(), leeway: rules.leeway)
        return person
    }

    /// The token of a header field.
    private static func token(_ header: String?) throws(StepProblem) -> String {
        guard let header else { throw TokenProblem.missing }
        let parts = header.split(separator: " ", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].lowercased() == "bearer", !parts[1].isEmpty else {
            throw TokenProblem.header("The Authorization header has to be Bearer and a token")
        }
        return String(parts[1])
    }

    /// The owner of an opaque token, as the issuer tells.
    private func owner(_ token: String) async throws(StepProblem) -> Person {
        var claims = try await directory.claims(of: token)
        if rules.refusesTestIssuers, claims.contains(TokenRules.testIssuerClaim) {
            throw TokenProblem.claims("Tokens of issuers for tests are not accepted")
        }
        if let expires = claims["exp"]?.double, Double(now().milliseconds) / 1000 > expires + rules.leeway.seconds {
            throw TokenProblem.expired
        }
        // The older word for a second factor, which says by what means.
        if let factors = claims["multifactor"]?.array, !factors.isEmpty {
            claims["amr"] = .array(
                (claims["amr"]?.array ?? []) + [JSONValue(rules.secondFactors.sorted().first ?? "mfa")]
            )
        }
        // What is said now says nothing of later.
        claims["exp"] = .number(JSONNumber(Double(now().milliseconds) / 1000))
        return try person(claims, digest: Array(SHA256.hash(data: Array(token.utf8))))
    }

    private func check(_ claims: JSONObject) throws(StepProblem) {
        guard claims["iss"]?.string == rules.issuer else { throw TokenProblem.claims("The issuer is another one") }
        if rules.refusesTestIssuers, claims.contains(TokenRules.testIssuerClaim) {
            throw TokenProblem.claims("Tokens of issuers for tests are not accepted")
        }
        let audiences = claims["aud"]?.string.map { [$0] } ?? claims["aud"]?.array?.compactMap(\.string) ?? []
        guard audiences.contains(rules.audience) else { throw TokenProblem.claims("The token is for somebody else") }
        if audiences.count > 1 {
            guard let client = claims["azp"]?.string, rules.clients.contains(client) else {
                throw TokenProblem.claims("The client that asked for the token is not one of ours")
            }
        }
        let moment = Double(now().milliseconds) / 1000
        let leeway = rules.leeway.seconds
        guard let expires = claims["exp"]?.double else { throw TokenProblem.claims("The token never expires") }
        guard moment <= expires + leeway else { throw TokenProblem.expired }
        if let start = claims["nbf"]?.double, moment + leeway < start {
            throw TokenProblem.claims("The token is not valid yet")
        }
        let issued = claims["iat"]?.double
        if let issued, issued > moment + leeway { throw TokenProblem.claims("The token comes from the future") }
        guard expires - (issued ?? moment) <= rules.longestLife.seconds + (issued == nil ? leeway : 0) else {
            throw TokenProblem.claims("The token lives too long")
        }
    }

    private func person(_ claims: JSONObject, digest: [UInt8]) throws(StepProblem) -> Person {
        guard let subject = claims["sub"]?.string, !subject.isEmpty, subject.utf8.count <= 320 else {
            throw TokenProblem.claims("The token names nobody")
        }
        let isVerified = claims["email_verified"]?.bool == true
        let groups = (claims[rules.groupsClaim] ?? claims["groups"])?.array?.compactMap(\.string) ?? []
        let methods =
            (claims["amr"]?.array ?? [])
            + (rules.methodsClaim.flatMap { claims[$0] }.map { $0.array ?? [$0] } ?? [])
        let names = methods.compactMap(\.string)
        return Person(
            subject: subject,
            email: isVerified ? claims["email"]?.string?.lowercased() : nil,
            groups: Set(groups),
            methods: names,
            usedSecondFactor: names.contains { rules.secondFactors.contains($0) },
            issued: claims["iat"]?.double.map { Timestamp(seconds: $0) },
            authenticated: claims["auth_time"]?.double.map { Timestamp(seconds: $0) },
            expires: Timestamp(seconds: claims["exp"]?.double ?? 0),
            isMachine: claims.contains("gty") || subject.hasSuffix("@clients"),
            issuer: rules.issuer,
            tokenID: claims["jti"]?.string,
            tokenDigest: digest
        )
    }
}
