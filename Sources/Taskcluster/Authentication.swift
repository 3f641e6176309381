// SPDX-License-Identifier: MPL-2.0

public import JSON
public import Schedules

/// What a service knows about a request whose sender it wants verified.
public struct AuthenticationRequest: Sendable, Hashable {
    /// The HTTP method in any case.
    public var method: String
    /// Path and query exactly as on the request line.
    public var resource: String
    /// The host name the client addressed, without the port.
    public var host: String
    /// The port the client addressed.
    public var port: Int
    /// The `Authorization` header, if there is one.
    public var authorization: String?
    /// The address the request came from.
    public var sourceIP: String?

    /// A request from its parts.
    public init(
        method: String,
        resource: String,
        host: String,
        port: Int,
        authorization: String? = nil,
        sourceIP: String? = nil
    ) {
        self.method = method
        self.resource = resource
        self.host = host
        self.port = port
        self.authorization = authorization
        self.sourceIP = sourceIP
    }

    /// Reads the body of an `authenticateHawk` call; nil when a required member is absent.
    public init?(json: JSONValue) {
        guard let method = json["method"]?.string, let resource = json["resource"]?.string,
            let host = json["host"]?.string, let port = json["port"]?.int
        else { return nil }
        self.init(
            method: method,
            resource: resource,
            host: host,
            port: port,
            authorization: json["authorization"]?.string,
            sourceIP: json["sourceIp"]?.string
        )
    }

    /// The body of an `authenticateHawk` call.
    public var json: JSONValue {
        var json: JSONValue = [
            "method": .string(method.lowercased()), "resource": .string(resource), "host": .string(host),
            "port": JSONValue(port),
        ]
        if let authorization { json["authorization"] = .string(authorization) }
        if let sourceIP { json["sourceIp"] = .string(sourceIP) }
        return json
    }
}

/// Who sent a request and what they may do.
public enum AuthenticationResult: Sendable, Hashable {
    /// The signature is good; `hash`, if any, must still be compared with the body.
    case success(clientID: String, expires: Timestamp, scopes: [String], hash: String?)
    /// The credentials are bad; the message is for the client.
    case failed(message: String)
    /// There are no credentials; the scopes are those of everybody.
    case none(scopes: [String], expires: Timestamp)

    /// Reads the answer of an `authenticateHawk` call; nil when it is none.
    public init?(json: JSONValue) {
        let scopes = json["scopes"]?.array?.compactMap(\.string)
        let expires = json["expires"]?.string.flatMap { Timestamp($0) }
        switch json["status"]?.string {
        case "auth-success":
            guard let clientID = json["clientId"]?.string, let scopes, let expires else { return nil }
            self = .success(clientID: clientID, expires: expires, scopes: scopes, hash: json["hash"]?.string)
        case "auth-failed":
            self = .failed(message: json["message"]?.string ?? "Authentication failed")
        case "no-auth":
            guard let scopes, let expires else { return nil }
            self = .none(scopes: scopes, expires: expires)
        default:
            return nil
        }
    }

    /// The answer of an `authenticateHawk` call.
    public var json: JSONValue {
        switch self {
        case .success(let clientID, let expires, let scopes, let hash):
            var json: JSONValue = [
                "status": "auth-success", "scheme": "hawk", "clientId": .string(clientID),
                "expires": .string(expires.iso8601), "scopes": JSONValue(scopes),
            ]
            if let hash { json["hash"] = .string(hash) }
            return json
        case .failed(let message):
            return ["status": "auth-failed", "message": .string(message)]
        case .none(let scopes, let expires):
            return [
                "status": "no-auth", "scheme": "none", "scopes": JSONValue(scopes),
                "expires": .string(expires.iso8601),
            ]
        }
    }
}

/// Verifies who sent a request: in process, or by asking the auth service.
public protocol RequestAuthenticator: Sendable {
    /// The verdict about a request; throws only when no verdict could be reached.
    func authenticate(_ request: AuthenticationRequest) async throws -> AuthenticationResult
}
