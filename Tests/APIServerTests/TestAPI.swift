// SPDX-License-Identifier: MPL-2.0

import APIServer
import Glibc
import JSON
import Synchronization
import Taskcluster

/// An API with one endpoint for each thing the server does.
enum TestAPI {
    static func make(_ schemas: SchemaStore, _ events: Events, service: String = "tests") -> API {
        let store = Mutex<[String: JSONValue]>([:])
        let shelf = Shelf(store)
        return API(
            service: service,
            title: "Tests API",
            description: "Things for tests.",
            schemas: schemas,
            endpoints: things(shelf) + odd(events),
            exchanges: [
                ExchangeReference(
                    exchange: "thing-made",
                    name: "thingMade",
                    title: "Thing Made",
                    description: "A thing was made.",
                    routingKey: [
                        .init("routingKeyKind", summary: "Always primary", constant: "primary"),
                        .init("thing", summary: "Its name", multipleWords: true, required: false),
                    ],
                    schema: "v1/thing.json"
                )
            ]
        )
    }

    private static func things(_ shelf: Shelf) -> [Endpoint] {
        [
            Endpoint(
                .put,
                "/thing/<name>",
                name: "putThing",
                scopes: .scope("tests:write:<name>"),
                parameters: ["name": "^[a-z/]+$"],
                input: "v1/thing.json",
                output: "v1/thing.json",
                category: "Things",
                title: "Put",
                description: "Puts a thing."
            ) { request in
                try shelf.put(request.parameter("name"), request.body)
                return .json(request.body)
            },
            Endpoint(
                .get,
                "/thing/<name>",
                name: "getThing",
                scopes: .scope("tests:read:<name>"),
                parameters: ["name": "^[a-z/]+$"],
                output: "v1/thing.json",
                category: "Things",
                title: "Get",
                description: "Gets a thing."
            ) { request in
                guard let value = shelf.get(request.parameter("name")) else {
                    throw APIError(
                        .resourceNotFound,
                        "No {{what}} named {{name}}, {{unknown}}",
                        details: ["what": ["a": 1], "name": .string(request.parameter("name"))]
                    )
                }
                return .json(value)
            },
            Endpoint(
                .get,
                "/list",
                name: "list",
                query: .paging,
                category: "Things",
                title: "List",
                description: "Lists two rows."
            ) { request in
                let after = try request.page.int(0) ?? 0
                let rows = [1, 2].filter { $0 > after }.prefix(request.page.fetch)
                return .json(
                    request.page.reply("rows", Array(rows), columns: { [JSONValue($0)] }, json: { JSONValue($0) })
                )
            },
            Endpoint(
                .get,
                "/path/<name*>",
                name: "splat",
                category: "Things",
                title: "Splat",
                description: "Shows the rest of a path."
            ) { .json(["name": .string($0.parameter("name")), "resource": .string($0.resource)]) },
            Endpoint(
                .get,
                "/queues/<queue*>/counts",
                name: "counts",
                category: "Things",
                title: "Counts",
                description: "Has the rest of a path in its middle."
            ) { .json(["queue": .string($0.parameter("queue"))]) },
        ]
    }

    /// Ready before it is asked for, so that it is queued the moment a handler returns.
    private static let parcel =
        Array("\"".utf8) + [UInt8](repeating: UInt8(ascii: "x"), count: 10_000_000) + Array("\"".utf8)

    private static func odd(_ events: Events) -> [Endpoint] {
        [
            Endpoint(
                .post,
                "/deferred",
                name: "deferred",
                scopes: .scope("tests:deferred:<kind>"),
                category: "Odd",
                title: "Deferred",
                description: "Authorises by hand, or forgets to."
            ) { request in
                if request.header("x-kind") != nil {
                    try await request.authorize(["kind": .string(request.header("x-kind") ?? "")])
                }
                return .json(["clientId": .string(request.clientID ?? "")])
            },
            Endpoint(
                .get,
                "/wrong-output",
                name: "wrongOutput",
                output: "v1/thing.json",
                category: "Odd",
                title: "Wrong",
                description: "Answers against its schema."
            ) { _ in .json(["leak": "me"]) },
            Endpoint(
                .get,
                "/secret/<token>",
                name: "secret",
                category: "Odd",
                title: "Secret",
                description: "Has a secret in its path.",
                secretParameters: ["token"]
            ) { _ in .empty },
            Endpoint(
                .get,
                "/slow",
                name: "slow",
                category: "Odd",
                title: "Slow",
                description: "Takes a moment."
            ) { _ in
                events.note("slow began")
                try await Task.sleep(for: .milliseconds(1500))
                return .json([:])
            },
            Endpoint(
                .get,
                "/parcel/<name>",
                name: "parcel",
                category: "Odd",
                title: "Parcel",
                description: "Answers more than the buffers of two sockets hold, and notes what becomes of it."
            ) { request in
                let name = request.parameter("name")
                request.onUndelivered { events.note("\(name) came back") }
                events.note("\(name) is ready")
                return .rawJSON(parcel)
            },
            Endpoint(
                .get,
                "/poll",
                name: "poll",
                category: "Odd",
                title: "Poll",
                description: "Waits for something that never comes."
            ) { request in
                try await request.withDisconnect {
                    events.note("poll began")
                    do {
                        try await Task.sleep(for: .seconds(20))
                    } catch {
                        events.note("poll cancelled")
                        throw error
                    }
                    return .json([:])
                }
            },
        ]
    }
}

/// Where things are kept; a second put has to be the same.
private final class Shelf: Sendable {
    private let things: Mutex<[String: JSONValue]>

    init(_ things: consuming sending Mutex<[String: JSONValue]>) {
        self.things = things
    }

    func put(_ name: String, _ value: JSONValue) throws {
        let isSame = things.withLock { things in
            let known = things[name]
            things[name] = known ?? value
            return known == nil || known == value
        }
        guard isSame else { throw APIError(.requestConflict, "The thing exists and differs") }
    }

    func get(_ name: String) -> JSONValue? {
        things.withLock { $0[name] }
    }
}

/// Schemas in a temporary folder.
enum TestSchemas {
    static func write(_ service: String = "tests") throws -> String {
        let folder = "/tmp/slipway-api-tests-\(getpid())-\(UInt64.random(in: 0...(.max)))"
        for path in [folder, "\(folder)/\(service)", "\(folder)/\(service)/v1"] {
            mkdir(path, 0o755)
        }
        let thing: JSONValue = [
            "$schema": "/schemas/common/metaschema.json#",
            "$id": "/schemas/tests/v1/thing.json#",
            "title": "Thing",
            "type": "object",
            "properties": [
                "size": ["type": "integer", "default": 7],
                "tags": ["type": "array", "items": ["type": "string"]],
            ],
            "additionalProperties": false,
            "required": ["size"],
        ]
        let pair: JSONValue = [
            "$schema": "/schemas/common/metaschema.json#",
            "$id": "/schemas/tests/v1/pair.json#",
            "title": "Pair",
            "type": "array",
            "items": ["$ref": "thing.json#"],
        ]
        for (name, schema) in [("thing", thing), ("pair", pair)] {
            let bytes = schema.bytes(.pretty)
            let descriptor = open("\(folder)/\(service)/v1/\(name).json", O_CREAT | O_WRONLY, 0o644)
            defer { close(descriptor) }
            guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count else { throw Failed() }
        }
        return folder
    }

    struct Failed: Error {}
}
