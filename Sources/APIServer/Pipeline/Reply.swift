// SPDX-License-Identifier: MPL-2.0

import HTTPTypes
import JSON

/// An answer on its way out: status, fields and where the body comes from.
struct Reply: Sendable {
    enum Body: Sendable {
        case none
        case bytes([UInt8])
        case file(FileSlice)
        case stream(APIResponse.NextPiece)
    }

    var status: Int
    var fields: HTTPFields
    var body: Body
    /// Whether the connection ends with this answer.
    var closes = false
    /// Whether another server made this answer, so that its fields stay as they are.
    var isForeign = false

    init(_ status: Int, fields: HTTPFields = [:], body: Body = .none) {
        self.status = status
        self.fields = fields
        self.body = body
    }

    static func json(_ value: JSONValue, _ status: Int = 200, fields: HTTPFields = [:]) -> Reply {
        json(value.bytes(.pretty), status, fields: fields)
    }

    static func json(_ bytes: [UInt8], _ status: Int = 200, fields: HTTPFields = [:]) -> Reply {
        var reply = Reply(status, fields: fields, body: .bytes(bytes))
        if reply.fields[.contentType] == nil {
            reply.fields[.contentType] = "application/json; charset=utf-8"
        }
        return reply
    }

    static func text(_ text: String, _ status: Int = 200, type: String = "text/plain; charset=utf-8") -> Reply {
        Reply(status, fields: [.contentType: type], body: .bytes(Array(text.utf8)))
    }

    /// The answer to paths nobody declared; not an error body in the sense of the API.
    static let notFound = Reply.json(["error": "Not found"], 404)

    /// Whether the length of the body is known before it is sent.
    var hasKnownLength: Bool {
        if case .stream = body { false } else { true }
    }

    var contentLength: Int {
        switch body {
        case .none: 0
        case .bytes(let bytes): bytes.count
        case .file(let slice): slice.length
        case .stream: 0
        }
    }
}

/// The fields that every answer carries.
struct StandardFields: Sendable {
    private let base: HTTPFields
    private let origins: Set<String>?

    init(forcesTLS: Bool, origins: Set<String>? = nil) {
        var fields: HTTPFields = [
            .accessControlAllowOrigin: "*",
            .accessControlMaxAge: "900",
            .accessControlAllowMethods: "OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE,TRACE,CONNECT",
            .accessControlAllowHeaders: "X-Requested-With,Content-Type,Authorization,Accept,Origin,Cache-Control",
            .cacheControl: "no-store, no-cache, must-revalidate",
            .xContentTypeOptions: "nosniff",
            .contentSecurityPolicy: "report-uri /__cspreport__;default-src 'none';frame-ancestors 'none';",
        ]
        fields[.known("Access-Control-Request-Method")] = "*"
        if forcesTLS {
            fields[.strictTransportSecurity] = "max-age=7776000"
        }
        if origins != nil {
            fields[.accessControlAllowOrigin] = nil
            fields[.vary] = "Origin"
            fields[.accessControlAllowHeaders] = "Authorization,Content-Type,If-Match,If-None-Match,Idempotency-Key"
            fields[.accessControlAllowMethods] = "OPTIONS,GET,HEAD,POST,PUT,PATCH,DELETE"
            fields[.known("X-Frame-Options")] = "SAMEORIGIN"
            fields[.known("Access-Control-Expose-Headers")] = "ETag,Location,Retry-After,WWW-Authenticate"
        }
        base = fields
        self.origins = origins
    }

    /// Puts the standard fields under those of an answer; `origin` is the page whose script asks.
    func completing(
        _ own: HTTPFields,
        origin: String? = nil,
        isSecure: Bool = false,
        trace: String,
        request: String,
        date: String
    ) -> HTTPFields {
        var fields = base
        if let origin, origins?.contains(origin) == true { fields[.accessControlAllowOrigin] = origin }
        if isSecure { fields[.strictTransportSecurity] = "max-age=7776000" }
        for field in own {
            fields[field.name] = nil
        }
        for field in own {
            fields.append(field)
        }
        fields.append(HTTPField(name: .forTrace, value: trace))
        fields.append(HTTPField(name: .forRequest, value: request))
        fields.append(HTTPField(name: .date, value: date))
        return fields
    }
}
