// SPDX-License-Identifier: MPL-2.0

import Crypto
import JSON
public import Schedules

/// All clients and roles of a deployment, ready to verify requests.
///
/// A directory is a snapshot: build a new one when a client or a role changes. What the first good request of some credentials
/// costs (expanding roles, reading a certificate) is remembered for the following ones.
public struct CredentialDirectory: Sendable {
    private let clients: [String: Client]
    private let roles: RoleSet
    private let headerLimit: Int
    private let anonymous: [String]
    private let grants = GrantCache()

    /// A snapshot of clients, by id, and roles; longer headers than `headerLimit` characters are refused.
    public init(clients: [String: Client], roles: RoleSet, headerLimit: Int = Hawk.headerLimit) {
        self.clients = clients
        self.roles = roles
        self.headerLimit = headerLimit
        anonymous = roles.expand([Self.anonymousScope])
    }

    /// The verdict about a request at a moment.
    public func authenticate(_ request: AuthenticationRequest, now: Timestamp) -> AuthenticationResult {
        let bewit = SignedResource(request.resource)
        guard request.authorization != nil || bewit != nil else {
            return .none(scopes: anonymous, expires: now + Self.skew)
        }
        do throws(HawkRejection) {
            switch (request.authorization, bewit) {
            case (_?, _?): throw .badRequest("Multiple authentications")
            case (let header?, nil): return try verify(header: header, request, now)
            case (nil, let bewit?): return try verify(bewit, request, now)
            case (nil, nil): throw .unauthorized("No credentials")
            }
        } catch {
            return .failed(message: error.description)
        }
    }

    /// The scopes a client has by its grants and roles, with those of everybody; nil when there is no such client.
    public func scopes(ofClient id: String) -> [String]? {
        clients[id].map { roles.expand($0.scopes + [Self.anonymousScope]) }
    }

    private static let anonymousScope = "assume:anonymous"
    private static let skew: Duration = .seconds(15 * 60)

    private func verify(
        header text: String,
        _ request: AuthenticationRequest,
        _ now: Timestamp
    ) throws(HawkRejection) -> AuthenticationResult {
        let header = try Hawk.Header(text, limit: headerLimit)
        var artifacts = Hawk.Artifacts(
            timestamp: header.timestamp,
            nonce: header.nonce,
            method: request.method,
            target: Hawk.Target(host: request.host, port: request.port, resource: request.resource),
            hash: header.hash,
            ext: header.ext
        )
        artifacts.app = header.app
        artifacts.dlg = header.dlg
        return try verify(.header, artifacts, clientID: header.id, mac: header.mac, now) { () throws(HawkRejection) in
            guard let seconds = Int64(header.timestamp), let drift = now.secondsSince(seconds), abs(drift) <= 15 * 60
            else {
                throw .unauthorized("Stale timestamp")
            }
        }
    }

    private func verify(
        _ bewit: SignedResource,
        _ request: AuthenticationRequest,
        _ now: Timestamp
    ) throws(HawkRejection) -> AuthenticationResult {
        guard request.resource.utf8.count <= Hawk.headerLimit else {
            throw .badRequest("Resource path exceeds max length")
        }
        guard ["GET", "HEAD"].contains(request.method.uppercased()) else { throw .unauthorized("Invalid method") }
        let parts = try bewit.parts()
        guard let expiry = Int64(parts.expiry), let left = now.secondsSince(expiry), left < 0 else {
            throw .unauthorized("Access expired")
        }
        let target = Hawk.Target(host: request.host, port: request.port, resource: bewit.resource)
        let artifacts = Hawk.Artifacts(
            timestamp: parts.expiry,
            nonce: "",
            method: "GET",
            target: target,
            ext: parts.ext
        )
        return try verify(.bewit, artifacts, clientID: parts.id, mac: parts.mac, now) { () throws(HawkRejection) in }
    }

    private func verify(
        _ kind: Hawk.Kind,
        _ artifacts: Hawk.Artifacts,
        clientID: String,
        mac: String,
        _ now: Timestamp,
        _ checkTime: () throws(HawkRejection) -> Void
    ) throws(HawkRejection) -> AuthenticationResult {
        let ext = artifacts.ext ?? ""
        var grant: Grant
        let isKnown: Bool
        if let known = grants[clientID, ext], known.isCurrent(now) {
            (grant, isKnown) = (known, true)
        } else {
            (grant, isKnown) = (try makeGrant(clientID, ext, now), false)
        }
        let expected = Hawk.macBytes(kind, artifacts, key: grant.key)
        guard Hawk.constantTimeEqual(expected, mac.utf8) else { throw .unauthorized("Bad mac") }
        try checkTime()
        if !isKnown {
            try limit(&grant)
            grants[clientID, ext] = grant
        }
        return .success(clientID: clientID, expires: grant.expires, scopes: grant.scopes, hash: artifacts.hash)
    }

    /// Who may sign with which key: §10.2 of the protocol, everything but the signature of the request itself.
    private func makeGrant(_ clientID: String, _ text: String, _ now: Timestamp) throws(HawkRejection) -> Grant {
        let ext = text.isEmpty ? Extension() : try Extension(text)
        let certificate: Certificate? =
            if let json = ext.certificate { try Certificate(json, clientID: clientID) } else { nil }
        let issuer = try client(certificate?.issuer ?? clientID, now)
        guard let certificate else {
            return Grant(
                key: SymmetricKey(data: Array(issuer.accessToken.utf8)),
                scopes: issuer.scopes,
                authorizedScopes: ext.authorizedScopes,
                expires: issuer.expires,
                notBefore: nil,
                notAfter: issuer.expires
            )
        }
        try certificate.checkValidity(now: now)
        try checkPower(of: issuer, toIssue: certificate, clientID)
        guard certificate.isSigned(clientID: clientID, key: issuer.accessToken) else {
            throw HawkRejection("ext.certificate.signature is not valid, or wrong clientId provided")
        }
        let expiry = Timestamp(milliseconds: certificate.expiry)
        return Grant(
            key: SymmetricKey(data: Array(certificate.accessToken(key: issuer.accessToken).utf8)),
            scopes: certificate.scopes,
            authorizedScopes: ext.authorizedScopes,
            expires: min(issuer.expires, expiry),
            notBefore: Timestamp(milliseconds: certificate.start - Certificate.skew),
            notAfter: min(issuer.expires, Timestamp(milliseconds: certificate.expiry + Certificate.skew))
        )
    }

    private func checkPower(
        of issuer: Client,
        toIssue certificate: Certificate,
        _ clientID: String
    ) throws(HawkRejection) {
        let held = roles.expand(issuer.scopes)
        if let name = certificate.issuer {
            let needed = "auth:create-client:\(clientID)"
            guard Scope.satisfies(held, needed) else {
                throw HawkRejection("ext.certificate issuer `\(name)` does not satisfy `\(needed)`")
            }
        }
        guard Scope.satisfies(held, all: certificate.scopes) else {
            throw HawkRejection(
                "ext.certificate issuer `\(issuer.id)` does not satisfy all of the certificate's scopes"
            )
        }
    }

    private func client(_ id: String, _ now: Timestamp) throws(HawkRejection) -> Client {
        guard let client = clients[id] else { throw HawkRejection("Client with clientId '\(id)' not found") }
        if client.disabled { throw HawkRejection("Client with clientId '\(id)' is disabled") }
        if client.expires < now { throw HawkRejection("Client with clientId '\(id)' has expired") }
        return client
    }

    /// Replaces the raw scopes by the expanded ones of the request; expansion comes after limiting, as hooks need it.
    private func limit(_ grant: inout Grant) throws(HawkRejection) {
        let base = roles.expand(grant.scopes + [Self.anonymousScope])
        guard let authorized = grant.authorizedScopes else {
            grant.scopes = base
            return
        }
        guard Scope.satisfies(base, all: authorized) else {
            throw HawkRejection(
                "Supplied credentials do not satisfy authorizedScopes; credentials have fewer scopes than requested"
            )
        }
        grant.scopes = roles.expand(authorized + [Self.anonymousScope])
    }
}

extension Timestamp {
    /// Seconds from an instant given in whole seconds to this one; nil when that instant is absurd.
    fileprivate func secondsSince(_ seconds: Int64) -> Double? {
        guard seconds.magnitude < 1 << 40 else { return nil }
        return Double(milliseconds - seconds * 1000) / 1000
    }
}
