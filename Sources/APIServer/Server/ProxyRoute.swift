// SPDX-License-Identifier: MPL-2.0

public import HTTPClient
import HTTPTypes
import JSON
import Logging

/// A part of the address space that another server answers.
///
/// The target and the `Host` field reach the upstream byte for byte, because callers signed them.
public struct ProxyRoute: Sendable {
    /// What the path begins with, such as `/api/hooks/`.
    public let prefix: String
    /// The scheme, host and port of the other server, without a path.
    public let upstream: String
    /// What people call the other server.
    public let service: String
    /// How the other server is reached.
    public let transport: any HTTPTransport
    /// Paths below `/references/` that the other server answers and our manifest lists.
    public let references: [String]

    /// Declares a proxied prefix.
    public init(
        prefix: String,
        upstream: String,
        service: String? = nil,
        transport: any HTTPTransport,
        references: [String] = []
    ) {
        self.prefix = prefix
        self.upstream = upstream.hasSuffix("/") ? String(upstream.dropLast()) : upstream
        self.service = service ?? prefix.split(separator: "/").last.map(String.init) ?? prefix
        self.transport = transport
        self.references = references
    }

    /// Fields that concern one connection only and are never passed on.
    private static let ownOfConnection: Set<String> = [
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade", "host", "content-length", "expect",
    ]

    func forward(_ head: RequestHead, body: [UInt8]) async -> Reply {
        var headers = HTTPHeaders()
        if let host = head.host {
            headers.add("Host", host)
        }
        let dropped = Self.ownOfConnection.union(Self.listed(head.fields[.connection]))
        for field in head.fields where !dropped.contains(field.name.canonicalName) {
            headers.add(field.name.rawName, field.value)
        }
        // The chain of callers goes on; whether to believe it is up to the neighbour.
        if let caller = head.peerAddress {
            let chain = headers["X-Forwarded-For"].map { "\($0), \(caller)" } ?? caller
            headers["X-Forwarded-For"] = chain
        }
        do {
            let response = try await transport.send(
                HTTPClient.HTTPRequest(
                    method: head.method,
                    url: upstream + head.target,
                    headers: headers,
                    body: body.isEmpty && !head.hasBody ? .none : .bytes(body),
                    timeout: .seconds(120)
                )
            )
            return reply(response)
        } catch {
            Logger.current.warning(
                "upstream does not answer",
                metadata: ["upstream.service": .string(service), "error": .string("\(error)")]
            )
            return .json(
                [
                    "code": "BadGateway",
                    "message": .string("the service \(service) does not answer"),
                    "error": "Bad gateway",
                    "service": .string(service),
                ],
                502
            )
        }
    }

    /// The references and schemas that the other server lists; none if it does not answer.
    func documents() async -> [JSONValue] {
        let request = HTTPClient.HTTPRequest(url: upstream + "/references/references.json", timeout: .seconds(5))
        do {
            let response = try await transport.send(request)
            return response.status == 200 ? try response.json().array ?? [] : []
        } catch {
            Logger.current.warning(
                "upstream does not tell its references",
                metadata: ["upstream.service": .string(service), "error": .string("\(error)")]
            )
            return []
        }
    }

    private func reply(_ response: HTTPClient.HTTPResponse) -> Reply {
        var fields = HTTPFields()
        let dropped = Self.ownOfConnection.union(Self.listed(response.headers["Connection"]))
        for (name, value) in response.headers.pairs where !dropped.contains(name.lowercased()) {
            if let name = HTTPField.Name(name) {
                fields.append(HTTPField(name: name, value: value))
            }
        }
        var reply = Reply(response.status, fields: fields, body: .bytes(response.body))
        // The answer to a HEAD names the length of a body that is not there.
        if response.body.isEmpty, let length = response.headers["Content-Length"] {
            reply.fields[.contentLength] = length
        }
        reply.isForeign = true
        return reply
    }

    /// The fields that a `Connection` field names.
    private static func listed(_ connection: String?) -> [String] {
        (connection ?? "").split(separator: ",").map { $0.trimmingBlanks().lowercased() }
    }
}
