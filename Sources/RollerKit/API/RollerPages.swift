// SPDX-License-Identifier: MPL-2.0

import APIServer
import Crypto
import Taskcluster

/// The page of operators: a few files that are part of the program, for whoever asks.
///
/// It holds nothing that needs protection. The browser signs what it asks of the API, with credentials that it is given
/// by hand; nothing of another site is loaded, and no script but ours runs.
enum RollerPages {
    /// A file with its type and the tag of its content.
    struct File: Sendable {
        let type: String
        let bytes: [UInt8]
        let tag: String

        init(_ type: String, _ bytes: [UInt8]) {
            self.type = type + "; charset=utf-8"
            self.bytes = bytes
            tag = "\"" + Base64.urlEncoded(Array(SHA256.hash(data: bytes))) + "\""
        }
    }

    /// Where the page is.
    static let path = "/ui"

    /// The files by their names; the page itself has none.
    static let files: [String: File] = [
        "": File("text/html", PackageResources.index_html), "roller.css": File("text/css", PackageResources.roller_css),
        "roller.js": script(PackageResources.roller_js), "api.js": script(PackageResources.api_js),
        "dom.js": script(PackageResources.dom_js), "hawk.js": script(PackageResources.hawk_js),
        "import.js": script(PackageResources.import_js), "jobs.js": script(PackageResources.jobs_js),
        "machines.js": script(PackageResources.machines_js),
    ]

    private static func script(_ bytes: [UInt8]) -> File { File("text/javascript", bytes) }

    /// What browsers are told to refuse.
    static let policy = [
        "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "base-uri 'none'",
        "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
    ].joined(separator: "; ")

    private static let fields: [(name: String, value: String)] = [
        (name: "Content-Security-Policy", value: policy), (name: "Referrer-Policy", value: "no-referrer"),
        (name: "X-Frame-Options", value: "DENY"), (name: "Cross-Origin-Opener-Policy", value: "same-origin"),
        (name: "Cross-Origin-Resource-Policy", value: "same-origin"), (name: "Cache-Control", value: "no-cache"),
    ]

    /// Answers a request for the page or one of its files.
    static func answer(_ request: RawRequest) -> RawResponse {
        let name = request.path.dropFirst(path.utf8.count)
        if name.isEmpty {
            return RawResponse(status: 308, headers: fields + [(name: "Location", value: "ui/")])
        }
        guard name.hasPrefix("/"), let file = files[String(name.dropFirst())] else {
            return RawResponse(status: 404, headers: fields)
        }
        let own = fields + [(name: "ETag", value: file.tag)]
        if request.header("If-None-Match") == file.tag { return RawResponse(status: 304, headers: own) }
        let body: RawResponse.Body = request.method == "HEAD" ? .none : .bytes(file.bytes)
        return RawResponse(status: 200, headers: own + [(name: "Content-Type", value: file.type)], body: body)
    }
}
