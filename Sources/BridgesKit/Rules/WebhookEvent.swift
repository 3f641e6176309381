// SPDX-License-Identifier: MPL-2.0

import Crypto
import JSON
import Taskcluster

/// What a delivery is about, read from its headers and its body.
struct WebhookEvent: Equatable {
    /// What tells the delivery from others of its source.
    var deliveryID: String
    /// What happened, in the sender's words.
    var event: String
    var action: String?
    var owner: String?
    var repository: String?
    var installation: JSONValue?
    /// The words of the routing key, not yet made safe.
    var words: [String]
    /// Whether the sender only tries out whether anybody answers.
    var isPing = false

    /// Why a delivery cannot be understood.
    struct Problem: Error, Equatable, CustomStringConvertible {
        let description: String

        init(_ description: String) {
            self.description = description
        }
    }

    /// Reads a delivery in the dialect of its source.
    init(
        _ source: WebhookSource,
        header: (String) -> String?,
        payload: JSONValue,
        body: [UInt8]
    ) throws(Problem) {
        switch source.kind {
        case .github: try self.init(github: header, payload)
        case .bitbucket: try self.init(bitbucket: header, payload)
        case .gitlab: try self.init(gitlab: header, payload, body)
        case .standard: try self.init(standard: header, payload)
        case .hmac(let form): try self.init(form, header, payload, body)
        }
        guard (1...200).contains(deliveryID.utf8.count), deliveryID.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
        else { throw Problem("the id of the delivery must be 1 to 200 printable characters without blanks") }
    }

    /// The event's four standard words.
    private init(id: String, event: String, owner: String?, repository: String?, action: String?) {
        deliveryID = id
        self.event = event
        self.owner = owner
        self.repository = repository
        self.action = action
        words = [event, owner ?? "", repository ?? "", action ?? ""]
    }

    // MARK: - Dialects

    private init(github header: (String) -> String?, _ payload: JSONValue) throws(Problem) {
        guard let event = header("X-GitHub-Event") else { throw Problem("the header X-GitHub-Event is missing") }
        guard let id = header("X-GitHub-Delivery") else { throw Problem("the header X-GitHub-Delivery is missing") }
        let repository = payload["repository"]
        let owner = repository?["owner"]?["login"] ?? repository?["owner"]?["name"] ?? payload["organization"]?["login"]
        self.init(
            id: id,
            event: event,
            owner: owner?.string,
            repository: repository?["name"]?.string,
            action: payload["action"]?.string
        )
        if let installation = payload["installation"]?["id"], installation.int != nil {
            self.installation = installation
        }
        isPing = event == "ping"
    }

    private init(bitbucket header: (String) -> String?, _ payload: JSONValue) throws(Problem) {
        guard let key = header("X-Event-Key") else { throw Problem("the header X-Event-Key is missing") }
        let isPing = key == "diagnostics:ping"
        guard let id = header("X-Request-UUID") ?? header("X-Request-Id") ?? (isPing ? "ping" : nil) else {
            throw Problem("the headers X-Request-UUID and X-Request-Id are missing")
        }
        let parts = key.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        // Pull requests of Data Center name their repository inside the pull request.
        let repository = payload["repository"] ?? payload["pullRequest"]?["toRef"]?["repository"]
        var owner = repository?["project"]?["key"]?.string
        var name = repository?["slug"]?.string
        if let full = repository?["full_name"]?.string, let slash = full.lastIndex(of: "/") {
            owner = String(full[..<slash])
            name = String(full[full.index(after: slash)...])
        }
        self.init(
            id: id,
            event: String(parts[0]),
            owner: owner,
            repository: name,
            action: parts.count > 1 ? parts[1].split(separator: ":").joined(separator: "_") : nil
        )
        self.isPing = isPing
    }

    private init(gitlab header: (String) -> String?, _ payload: JSONValue, _ body: [UInt8]) throws(Problem) {
        guard let title = header("X-Gitlab-Event") else { throw Problem("the header X-Gitlab-Event is missing") }
        var event = title.lowercased().split(separator: " ").joined(separator: "_")
        if event.hasSuffix("_hook") { event.removeLast(5) }
        // The system's own hooks say what happened in the body only.
        if event == "system", let name = payload["event_name"]?.string ?? payload["object_kind"]?.string {
            event = name
        }
        // Older servers send no key of the delivery; events made by one another share the id of the first.
        let digest = Base64.urlEncoded(Array(SHA256.hash(data: body)))
        let id = header("Idempotency-Key") ?? header("webhook-id")
        let fallback = header("X-Gitlab-Event-UUID").map { "\($0):\(digest)" } ?? digest
        let path = payload["project"]?["path_with_namespace"]?.string ?? payload["path_with_namespace"]?.string
        var owner: String?
        var name: String?
        if let path, let slash = path.lastIndex(of: "/") {
            owner = String(path[..<slash])
            name = String(path[path.index(after: slash)...])
        }
        self.init(
            id: id ?? fallback,
            event: event,
            owner: owner,
            repository: name,
            action: payload["object_attributes"]?["action"]?.string
        )
    }

    private init(standard header: (String) -> String?, _ payload: JSONValue) throws(Problem) {
        guard let id = header("webhook-id") else { throw Problem("the header webhook-id is missing") }
        // The specification suggests types such as `invoice.paid`, whose parts become words.
        let type = payload["type"]?.string ?? "event"
        self.init(id: id, event: type, owner: nil, repository: nil, action: nil)
        let parts = type.split(separator: ".").prefix(8).map(String.init)
        words = parts.isEmpty ? [""] : parts
    }

    private init(
        _ form: WebhookSource.Description,
        _ header: (String) -> String?,
        _ payload: JSONValue,
        _ body: [UInt8]
    ) throws(Problem) {
        func value(_ selector: WebhookSource.Selector) -> String? {
            switch selector {
            case .header(let name): header(name)
            case .pointer(let pointer): payload.value(at: pointer)?.scalarText
            case .literal(let text): text
            }
        }
        let id: String
        switch form.identity {
        case .none: id = Slugid.make()
        case .body: id = Base64.urlEncoded(Array(SHA256.hash(data: body)))
        case .value(let selector):
            guard let text = value(selector) else { throw Problem("the id of the delivery is missing") }
            id = text
        }
        let event = form.event.flatMap(value) ?? "event"
        self.init(id: id, event: event, owner: nil, repository: nil, action: nil)
        words = form.routingKey.isEmpty ? [event] : form.routingKey.map { value($0) ?? "" }
    }
}
