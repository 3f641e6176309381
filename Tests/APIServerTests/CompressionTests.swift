// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import Taskcluster
import Testing

@testable import APIServer

@Suite(.timeLimit(.minutes(5)))
struct CompressionTests {
    private let base = "/api/tests/v1"
    private let json = "application/json"

    @Test func `long answers are compressed for those who ask`() async throws {
        try await TestServer.run { server in
            let plain = try await server.send("GET", "/references/tests/v1/api.json")
            #expect(plain.headers["Content-Encoding"] == nil)
            #expect(plain.headers["Vary"] == "Accept-Encoding")
            #expect(plain.body.count > ContentCoding.threshold)
            for accepted in ["gzip", "gzip, deflate, br", "deflate, GZIP;q=0.5", "*"] {
                let reply = try await server.send(
                    "GET",
                    "/references/tests/v1/api.json",
                    headers: [("Accept-Encoding", accepted)]
                )
                #expect(reply.headers["Content-Encoding"] == "gzip", "\(accepted)")
                #expect(reply.headers["Content-Length"] == String(reply.body.count))
                #expect(reply.body.count < plain.body.count / 2)
                #expect(try ContentCoding.gzip.decompressed(reply.body, limit: 1 << 20) == plain.body)
            }
            for refused in ["deflate", "gzip;q=0", "identity", "gzip;q=x"] {
                let reply = try await server.send(
                    "GET",
                    "/references/tests/v1/api.json",
                    headers: [("Accept-Encoding", refused)]
                )
                #expect(reply.headers["Content-Encoding"] == nil, "\(refused)")
                #expect(reply.body == plain.body)
            }
            let head = try await server.send(
                "HEAD",
                "/references/tests/v1/api.json",
                headers: [("Accept-Encoding", "gzip")]
            )
            #expect(head.headers["Content-Length"] == String(plain.body.count))
        }
    }

    @Test func `short answers stay as they are`() async throws {
        try await TestServer.run { server in
            let reply = try await server.send("GET", base + "/ping", headers: [("Accept-Encoding", "gzip")])
            #expect(reply.headers["Content-Encoding"] == nil)
            #expect(reply.value["alive"] == true)
        }
    }

    @Test func `a compressed answer of a neighbour passes unchanged`() async throws {
        try await TestServer.run { (neighbour) async throws in
            let upstream = "http://127.0.0.1:\(neighbour.port)"
            try await TestServer.run(proxies: [("/references/tests/", upstream)]) { server in
                let path = "/references/tests/v1/api.json"
                let plain = try await server.send("GET", path)
                let reply = try await server.send("GET", path, headers: [("Accept-Encoding", "gzip")])
                #expect(reply.headers["Content-Encoding"] == "gzip")
                #expect(try ContentCoding.gzip.decompressed(reply.body, limit: 1 << 20) == plain.body)
            }
        }
    }

    @Test(arguments: ["gzip", "x-gzip", "GZip", "deflate", "identity"])
    func `a compressed body is read, and its hash is that of the content`(coding: String) async throws {
        try await TestServer.run { server in
            let content = Array(#"{"size":3,"tags":["a"]}"#.utf8)
            let bytes =
                switch coding {
                case "deflate": Self.zlibContent
                case "identity": content
                default: try #require(ContentCoding.compressed(content))
                }
            let reply = try await server.send(
                "PUT",
                base + "/thing/a",
                bytes: bytes,
                as: TestServer.ruler,
                signing: { $0.payload = (json, content) },
                headers: [("Content-Encoding", coding)]
            )
            #expect(reply.status == 200)
            #expect(reply.value["size"] == 3)
        }
    }

    @Test func `a body in several members is one content`() async throws {
        let halves = try [#"{"size""#, ":4}"].map { try #require(ContentCoding.compressed(Array($0.utf8))) }
        try await TestServer.run { server in
            let reply = try await server.send(
                "PUT",
                base + "/thing/a",
                bytes: halves[0] + halves[1],
                as: TestServer.ruler,
                headers: [("Content-Encoding", "gzip")]
            )
            #expect(reply.value["size"] == 4)
        }
    }

    @Test func `a body that is damaged, cut, mislabelled or in an unknown coding is malformed`() async throws {
        let good = try #require(ContentCoding.compressed(Array("{}".utf8)))
        let cases: [(String, [UInt8])] = [
            ("gzip", Array(good.dropLast())), ("gzip", good + [0]), ("gzip", Array("{}".utf8)), ("deflate", good),
            ("br", good), ("gzip, gzip", good),
        ]
        try await TestServer.run { server in
            for (coding, bytes) in cases {
                let reply = try await server.send(
                    "PUT",
                    base + "/thing/a",
                    bytes: bytes,
                    as: TestServer.ruler,
                    headers: [("Content-Encoding", coding)]
                )
                #expect(reply.status == 400, "\(coding)")
                #expect(reply.code == "MalformedPayload")
            }
        }
    }

    @Test func `A19: a small body that unpacks to more than ten megabytes is refused with 413`() async throws {
        let body = #"{"x":""# + String(repeating: "a", count: 11 << 20) + #""}"#
        let bytes = try #require(ContentCoding.compressed(Array(body.utf8)))
        #expect(bytes.count < 1 << 20)
        try await TestServer.run { server in
            let reply = try await server.send(
                "PUT",
                base + "/thing/a",
                bytes: bytes,
                as: TestServer.ruler,
                headers: [("Content-Encoding", "gzip")]
            )
            #expect(reply.status == 413)
            #expect(reply.code == "InputTooLarge")
            #expect(try await server.send("GET", base + "/ping").status == 200)
        }
    }

    @Test func `A16: only text in UTF-8 is JSON`() async throws {
        try await TestServer.run { server in
            for (charset, status) in [("utf-8", 200), ("\"UTF-8\"", 200), ("latin1", 400), ("utf-16", 400)] {
                let reply = try await server.send(
                    "PUT",
                    base + "/thing/a",
                    "{}",
                    type: "application/json; charset=\(charset)",
                    as: TestServer.ruler
                )
                #expect(reply.status == status, "\(charset)")
                if status == 400 { #expect(reply.code == "MalformedPayload") }
            }
        }
    }

    /// The JSON of the test above as another implementation compresses it in the zlib format.
    private static let zlibContent: [UInt8] = [
        0x78, 0x9C, 0xAB, 0x56, 0x2A, 0xCE, 0xAC, 0x4A, 0x55, 0xB2, 0x32, 0xD6, 0x51, 0x2A, 0x49, 0x4C, 0x2F, 0x56,
        0xB2, 0x8A, 0x56, 0x4A, 0x54, 0x8A, 0xAD, 0x05, 0x00, 0x57, 0x1B, 0x07, 0x1B,
    ]
}
