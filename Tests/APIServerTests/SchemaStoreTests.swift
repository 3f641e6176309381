// SPDX-License-Identifier: MPL-2.0

import APIServer
import HTTPClient
import JSON
import JSONSchema
import Testing

@Suite(.timeLimit(.minutes(5)))
struct SchemaStoreTests {
    @Test func `a schema may refer to its neighbour`() throws {
        let store = SchemaStore(directory: try TestSchemas.write())
        let schema = try store.schema("tests", "v1/pair.json#")
        #expect(schema.validate([["size": 1]]).isEmpty)
        #expect(!schema.validate([["size": "x"]]).isEmpty)
        #expect(throws: SchemaError.self) { try store.schema("tests", "v1/none.json") }
    }

    @Test func `the references of a server are what their schemas say`() async throws {
        let shipped = try SchemaStore.locate()
        try await TestServer.run { (server) async throws in
            for (path, name) in [
                ("manifest.json", "manifest-v3.json"), ("tests/v1/api.json", "api-reference-v0.json"),
                ("tests/v1/exchanges.json", "exchanges-reference-v0.json"),
            ] {
                let document = try await server.send("GET", "/references/" + path).value
                let problems = try shipped.schema("common", name).validate(document)
                #expect(problems.map { $0.described() } == [])
            }
        }
    }
}
