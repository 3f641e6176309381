// SPDX-License-Identifier: MPL-2.0

import JSON
import Taskcluster

/// The documents that clients, their generators and people read: `/references/…` and `/schemas/…`.
struct References: Sendable {
    private let apis: [API]
    private let foreign: [String]
    private let rootURL: String

    init(apis: [API], proxies: [ProxyRoute], rootURL: String?) {
        self.apis = apis
        self.foreign = proxies.flatMap(\.references)
        var root = rootURL ?? ""
        while root.hasSuffix("/") { root.removeLast() }
        self.rootURL = root
    }

    /// The document at a path that was split on its slashes, `references` or `schemas` first; nil if there is none.
    func document(_ path: [Substring]) -> JSONValue? {
        switch path.first {
        case "references": reference(path.dropFirst().joined(separator: "/"))
        case "schemas": schema(path.dropFirst().joined(separator: "/"))
        default: nil
        }
    }

    private func reference(_ name: String) -> JSONValue? {
        if name == "manifest.json" { return manifest }
        if name == "references.json" { return everything }
        for api in apis {
            let folder = "\(api.service)/\(api.version)"
            if name == "\(folder)/api.json" { return Self.reference(of: api, root: rootURL) }
            if name == "\(folder)/exchanges.json", !api.exchanges.isEmpty {
                return Self.exchanges(of: api, root: rootURL)
            }
        }
        return nil
    }

    private func schema(_ path: String) -> JSONValue? {
        let service = path.prefix { $0 != "/" }
        let store = apis.first { $0.service == service }?.schemas ?? apis.first?.schemas
        return store?.document(path: path).map(absolute)
    }

    // MARK: - Documents

    /// Adds the files of another server's list to a list, those of the same name left out.
    static func merge(_ others: [JSONValue], into document: inout JSONValue) {
        let files = document.array ?? []
        let known = Set(files.compactMap { $0["filename"]?.string })
        let more = others.filter { $0["filename"]?.string.map { !known.contains($0) } ?? false }
        document = .array((files + more).sorted { $0["filename"]?.string ?? "" < $1["filename"]?.string ?? "" })
    }

    private var manifest: JSONValue {
        var names = foreign
        for api in apis {
            names.append("\(api.service)/\(api.version)/api.json")
            if !api.exchanges.isEmpty { names.append("\(api.service)/\(api.version)/exchanges.json") }
        }
        return [
            "$schema": .string("\(rootURL)/schemas/common/manifest-v3.json#"),
            "references": JSONValue(names.sorted().map { "\(rootURL)/references/\($0)" }),
        ]
    }

    private var everything: JSONValue {
        var files: [(name: String, content: JSONValue)] = []
        var seen: Set<String> = []
        for api in apis {
            let folder = "references/\(api.service)/\(api.version)"
            files.append(("\(folder)/api.json", Self.reference(of: api, root: rootURL)))
            if !api.exchanges.isEmpty {
                files.append(("\(folder)/exchanges.json", Self.exchanges(of: api, root: rootURL)))
            }
            for path in api.schemas.names(of: api.service) + api.schemas.names(of: "common")
            where seen.insert(path).inserted {
                if let content = api.schemas.document(path: path) {
                    files.append(("schemas/\(path)", absolute(content)))
                }
            }
        }
        return .array(
            files.sorted { $0.name < $1.name }.map { ["filename": .string($0.name), "content": $0.content] }
        )
    }

    static func reference(of api: API, root: String) -> JSONValue {
        [
            "$schema": .string("\(root)/schemas/common/api-reference-v0.json#"),
            "apiVersion": .string(api.version),
            "serviceName": .string(api.service),
            "title": .string(api.title),
            "description": .string(api.description),
            "entries": .array(api.endpoints.filter(\.publish).map(entry)),
        ]
    }

    private static func entry(_ endpoint: Endpoint) -> JSONValue {
        let pattern = RoutePattern(endpoint.route)
        var entry: JSONObject = [
            "type": "function",
            "method": .string(endpoint.method.rawValue.lowercased()),
            "route": .string(pattern.published),
            "query": JSONValue(endpoint.query.keys.filter { $0 != "*" }.sorted()),
            "args": JSONValue(pattern.names),
            "name": .string(endpoint.name),
            "stability": .string(endpoint.stability.rawValue),
            "title": .string(endpoint.title),
            "category": .string(endpoint.category),
            "description": .string(endpoint.description),
        ]
        if let scopes = endpoint.scopes { entry["scopes"] = scopes.json }
        if let input = endpoint.input { entry["input"] = .string(withFragment(input)) }
        if let output = endpoint.output { entry["output"] = .string(withFragment(output)) }
        return .object(entry)
    }

    static func exchanges(of api: API, root: String) -> JSONValue {
        [
            "$schema": .string("\(root)/schemas/common/exchanges-reference-v0.json#"),
            "apiVersion": .string(api.version),
            "serviceName": .string(api.service),
            "title": .string(api.exchangesTitle ?? api.title),
            "description": .string(api.description),
            "exchangePrefix": .string("exchange/taskcluster-\(api.service)/\(api.version)/"),
            "entries": .array(api.exchanges.map(entry)),
        ]
    }

    private static func entry(_ exchange: ExchangeReference) -> JSONValue {
        [
            "type": "topic-exchange",
            "exchange": .string(exchange.exchange),
            "name": .string(exchange.name),
            "title": .string(exchange.title),
            "description": .string(exchange.description),
            "routingKey": .array(
                exchange.routingKey.map { key in
                    var entry: JSONObject = ["name": .string(key.name), "summary": .string(key.summary)]
                    if let constant = key.constant { entry["constant"] = .string(constant) }
                    entry["multipleWords"] = .bool(key.multipleWords)
                    entry["required"] = .bool(key.required)
                    return .object(entry)
                }
            ),
            "schema": .string(withFragment(exchange.schema)),
        ]
    }

    // MARK: - Addresses

    private static func withFragment(_ name: String) -> String {
        name == "blob" || name.contains("#") ? name : name + "#"
    }

    /// Puts the root URL before the addresses a schema gives itself and its own schema.
    private func absolute(_ document: JSONValue) -> JSONValue {
        var document = document
        for key in ["$id", "$schema"] {
            if let address = document[key]?.string, address.hasPrefix("/") {
                document[key] = .string(rootURL + address)
            }
        }
        return document
    }
}
