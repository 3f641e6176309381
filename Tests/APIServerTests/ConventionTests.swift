// SPDX-License-Identifier: MPL-2.0

import APIServer
import HTTPClient
import JSON
import Schedules
import Taskcluster
import Testing

@Suite(.timeLimit(.minutes(5)))
struct ConventionTests {
    private let base = "/api/tests/v1"

    @Test func `A1: ping answers whatever the credentials`() async throws {
        try await TestServer.run { server in
            let reply = try await server.send("GET", base + "/ping", headers: [("Authorization", "garbage")])
            #expect(reply.status == 200)
            #expect(reply.value["alive"] == true)
            #expect(reply.value["uptime"]?.double ?? -1 >= 0)
        }
    }

    @Test func `A2: a slash at the end is optional and case matters`() async throws {
        try await TestServer.run { server in
            #expect(try await server.send("GET", base + "/ping/").status == 200)
            for path in [base + "/Ping", base + "//ping", "/api/tests/v2/ping", "/", "/api"] {
                let reply = try await server.send("GET", path)
                #expect(reply.status == 404, "\(path)")
                #expect(reply.value == ["error": "Not found"])
            }
            #expect(try await server.send("POST", base + "/ping").status == 404)
        }
    }

    @Test func `A3: errors name the API method and end with a trailer`() async throws {
        try await TestServer.run { server in
            let reply = try await server.send("GET", base + "/thing/none", as: TestServer.ruler)
            #expect(reply.status == 404)
            #expect(reply.code == "ResourceNotFound")
            #expect(
                reply.message.hasPrefix(
                    "No {\n  \"a\": 1\n} named none, {{unknown}}\n\n---\n\n* method:     getThing\n"
                )
            )
            #expect(reply.message.contains("\n* errorCode:  ResourceNotFound\n* statusCode: 404\n* time:       20"))
            #expect(reply.value["requestInfo"]?["method"] == "getThing")
            #expect(reply.value["requestInfo"]?["params"] == ["name": "none"])
            #expect(reply.value["requestInfo"]?["payload"] == [:])
            #expect(reply.headers["Content-Type"] == "application/json; charset=utf-8")
        }
    }

    @Test func `A4: without credentials a scoped endpoint says 403`() async throws {
        try await TestServer.run { server in
            let anonymous = try await server.send("GET", base + "/thing/a")
            #expect(anonymous.status == 403)
            #expect(anonymous.code == "InsufficientScopes")
            let poor = try await server.send("GET", base + "/thing/a", as: TestServer.pauper)
            #expect(poor.status == 403)
            #expect(poor.message.hasPrefix("Client ID tests/pauper does not have sufficient scopes"))
            #expect(poor.message.contains("tests:read:a"))
        }
    }

    @Test(arguments: ["tests/unknown", "tests/disabled", "tests/expired"])
    func `A5: unknown, disabled and expired clients get 401`(client: String) async throws {
        try await TestServer.run { server in
            let credentials = Hawk.Credentials(clientID: client, accessToken: TestServer.ruler.accessToken)
            let reply = try await server.send("GET", base + "/thing/a", as: credentials)
            #expect(reply.status == 401)
            #expect(reply.code == "AuthenticationFailed")
        }
    }

    @Test func `A6: a clock may be fourteen minutes off but not sixteen`() async throws {
        try await TestServer.run { server in
            let good = try await server.send("GET", base + "/thing/a", as: TestServer.ruler) {
                $0.now = .now() - .seconds(14 * 60)
            }
            #expect(good.status == 404)
            let bad = try await server.send("GET", base + "/thing/a", as: TestServer.ruler) {
                $0.now = .now() - .seconds(16 * 60)
            }
            #expect(bad.status == 401)
        }
    }

    @Test func `A7: a hash of the empty body is accepted on a GET and another one is not`() async throws {
        try await TestServer.run { server in
            let good = try await server.send("GET", base + "/thing/a", as: TestServer.ruler) { $0.payload = ("", []) }
            #expect(good.status == 404)
            let bad = try await server.send("GET", base + "/thing/a", as: TestServer.ruler) { $0.payload = ("", [1]) }
            #expect(bad.status == 401)
        }
    }

    @Test func `A8: a body that changed after signing is refused if its hash was signed`() async throws {
        try await TestServer.run { server in
            let bad = try await server.send("PUT", base + "/thing/a", "{}", as: TestServer.ruler) {
                $0.payload = ("application/json", Array(#"{"size":1}"#.utf8))
            }
            #expect(bad.status == 401)
            #expect(try await server.send("PUT", base + "/thing/a", "{}", as: TestServer.ruler).status == 200)
            let good = try await server.send("PUT", base + "/thing/a", "{}", as: TestServer.ruler) {
                $0.payload = ("application/json", Array("{}".utf8))
            }
            #expect(good.status == 200)
        }
    }

    @Test func `A9: an encoded slash is signed and routed as it was sent`() async throws {
        try await TestServer.run { server in
            let path = base + "/thing/poor%2Fthing"
            #expect(try await server.send("GET", path, as: TestServer.pauper).status == 404)
            let reply = try await server.send("GET", path, as: TestServer.pauper) {
                $0.target.resource = base + "/thing/poor/thing"
            }
            #expect(reply.status == 401)
        }
    }

    @Test func `A10: behind a proxy the forwarded port is the signed one`() async throws {
        try await TestServer.run { server in
            let reply = try await server.send(
                "GET",
                base + "/thing/a",
                as: TestServer.ruler,
                signing: { $0.target = Hawk.Target(host: "h", port: 443, resource: $0.target.resource) },
                headers: [("Host", "h"), ("X-Forwarded-Port", "443")]
            )
            #expect(reply.status == 404)
        }
    }

    @Test func `A11: a signed address works for reading until it expires`() async throws {
        try await TestServer.run { (server) async throws in
            func bewit(_ lifetime: Duration) -> String {
                let url = "http://127.0.0.1:\(server.port)\(base)/thing/a"
                let signed = Hawk.signedURL(url, credentials: TestServer.ruler, lifetime: lifetime, now: .now())
                return base + "/thing/a" + (signed ?? "").dropFirst(url.count)
            }
            #expect(try await server.send("PUT", base + "/thing/a", "{}", as: TestServer.ruler).status == 200)
            #expect(try await server.send("GET", bewit(.seconds(600))).value == ["size": 7])
            #expect(try await server.send("HEAD", bewit(.seconds(600))).status == 200)
            #expect(try await server.send("GET", bewit(.seconds(-1))).status == 401)
            let writing = try await server.send("PUT", bewit(.seconds(600)), "{}")
            #expect(writing.status == 401)
            #expect(writing.code == "AuthenticationFailed")
            #expect(try await server.send("GET", bewit(.seconds(600)), as: TestServer.ruler).status == 401)
        }
    }

    @Test func `A12: a signature is not an unknown query option`() async throws {
        try await TestServer.run { (server) async throws in
            #expect(try await server.send("GET", base + "/ping?bewit=abc").status == 200)
        }
    }

    @Test(arguments: ["?x=1", "?limit=a", "?limit=1&limit=2", "?limit[a]=1", "?limit=%zz"])
    func `A13: query options are known, single and well-formed`(query: String) async throws {
        try await TestServer.run { server in
            let reply = try await server.send("GET", base + "/list" + query)
            #expect(reply.status == 400)
            #expect(reply.code == "InvalidRequestArguments")
        }
    }

    @Test func `A14: scopes are compared before parameters are matched`() async throws {
        try await TestServer.run { server in
            #expect(try await server.send("GET", base + "/thing/UPPER").status == 403)
            let reply = try await server.send("GET", base + "/thing/UPPER", as: TestServer.ruler)
            #expect(reply.status == 400)
            #expect(reply.code == "InvalidRequestArguments")
            #expect(reply.message.contains("'name' given as 'UPPER' must match regular expression"))
            #expect(try await server.send("GET", base + "/thing/a?x=1").status == 403)
        }
    }

    @Test func `A15: JSON is parsed before anybody is authenticated`() async throws {
        try await TestServer.run { server in
            for body in ["{", "\"str\"", "5", "null"] {
                let reply = try await server.send("PUT", base + "/thing/a", body)
                #expect(reply.status == 400)
                #expect(reply.code == "MalformedPayload")
            }
            let reply = try await server.send("PUT", base + "/thing/a", "[]", as: TestServer.ruler)
            #expect(reply.code == "InputValidationError")
        }
    }

    @Test func `A16: only application json is JSON`() async throws {
        try await TestServer.run { server in
            let text = try await server.send("PUT", base + "/thing/a", "{}", type: "text/plain", as: TestServer.ruler)
            #expect(text.status == 400)
            #expect(text.code == "MalformedPayload")
            let json = try await server.send(
                "PUT",
                base + "/thing/a",
                "{}",
                type: "Application/JSON; charset=utf-8",
                as: TestServer.ruler
            )
            #expect(json.status == 200)
        }
    }

    @Test func `A17: an unknown property is refused`() async throws {
        try await TestServer.run { server in
            let reply = try await server.send("PUT", base + "/thing/a", #"{"x":1,"tags":5}"#, as: TestServer.ruler)
            #expect(reply.code == "InputValidationError")
            #expect(reply.message.contains("must NOT have additional properties"))
            #expect(reply.message.contains("must be array"))
            #expect(reply.value["requestInfo"]?["payload"] == ["x": 1, "tags": 5])
        }
    }

    @Test func `A18: defaults are filled in`() async throws {
        try await TestServer.run { (server) async throws in
            #expect(try await server.send("PUT", base + "/thing/a", "{}", as: TestServer.ruler).value == ["size": 7])
            #expect(try await server.send("GET", base + "/thing/a", as: TestServer.ruler).value == ["size": 7])
        }
    }

    @Test func `A19: a body over ten megabytes is refused with 413`() async throws {
        try await TestServer.run { server in
            let body = #"{"x":""# + String(repeating: "a", count: 11 << 20) + #""}"#
            let reply = try await server.send("PUT", base + "/thing/a", body, as: TestServer.ruler)
            #expect(reply.status == 413)
            #expect(reply.code == "InputTooLarge")
            #expect(try await server.send("GET", base + "/ping").status == 200)
        }
    }

    @Test func `A24 and A25: a token comes with a page only if more rows exist`() async throws {
        try await TestServer.run { server in
            let first = try await server.send("GET", base + "/list?limit=1").value
            #expect(first["rows"] == [1])
            let token = try #require(first["continuationToken"]?.string)
            let second = try await server.send("GET", base + "/list?limit=1&continuationToken=" + token).value
            #expect(second == ["rows": [2]])
            #expect(try await server.send("GET", base + "/list?limit=2").value == ["rows": [1, 2]])
            #expect(try await server.send("GET", base + "/list?limit=0").value == ["rows": [1, 2]])
            #expect(try await server.send("GET", base + "/list?limit=99999999999999999999").status == 200)
        }
    }

    @Test(arguments: ["***", "abc", "e30", "WyJhIl0"])
    func `A26: a token that is not ours is refused`(token: String) async throws {
        try await TestServer.run { server in
            let reply = try await server.send("GET", base + "/list?continuationToken=" + token)
            #expect(reply.status == 400)
            #expect(reply.code == "InputError")
        }
    }

    @Test func `A27: the same definition again is fine and another one conflicts`() async throws {
        try await TestServer.run { server in
            var statuses: [Int] = []
            let bodies = [
                #"{"size":7,"tags":["x"]}"#, #"{"tags":["x"],"size":7}"#, #"{"tags":["x"]}"#, #"{"tags":["y"]}"#,
            ]
            for body in bodies {
                statuses.append(try await server.send("PUT", base + "/thing/a", body, as: TestServer.ruler).status)
            }
            #expect(statuses == [200, 200, 200, 409])
        }
    }

    @Test func `A28: a browser may ask first, without credentials`() async throws {
        try await TestServer.run { server in
            let reply = try await server.send(
                "OPTIONS",
                base + "/thing/a",
                headers: [("Origin", "https://x"), ("Access-Control-Request-Headers", "authorization")]
            )
            #expect(reply.status == 200)
            #expect(reply.headers["Allow"] == "GET,HEAD,OPTIONS,PUT")
            #expect(reply.headers["Access-Control-Allow-Origin"] == "*")
            #expect(reply.headers["Access-Control-Allow-Headers"]?.contains("Authorization") == true)
            #expect(reply.headers["Access-Control-Allow-Methods"]?.contains("PATCH") == true)
        }
    }

    @Test func `the scripts of listed pages alone may call where there is a list`() async throws {
        var configuration = HTTPServerConfiguration()
        configuration.allowedOrigins = ["https://ship.example.com"]
        try await TestServer.run(configuration: configuration) { (server) async throws in
            for (origin, allowed) in [
                ("https://ship.example.com", "https://ship.example.com"), ("https://evil.example.com", nil),
                ("https://ship.example.com.evil.example", nil), ("null", nil),
            ] as [(String, String?)] {
                for method in ["OPTIONS", "GET"] {
                    let reply = try await server.send(method, base + "/ping", headers: [("Origin", origin)])
                    #expect(reply.headers["Access-Control-Allow-Origin"] == allowed, "\(origin)")
                    #expect(reply.headers["Vary"]?.contains("Origin") == true)
                    #expect(reply.headers["Access-Control-Allow-Headers"]?.contains("If-Match") == true)
                    #expect(reply.headers["Access-Control-Allow-Credentials"] == nil)
                    #expect(reply.headers["Access-Control-Allow-Methods"]?.contains("PATCH") == true)
                    #expect(reply.headers["X-Frame-Options"] == "SAMEORIGIN")
                }
            }
            let reply = try await server.send("GET", base + "/ping")
            #expect(reply.headers["Access-Control-Allow-Origin"] == nil)
        }
    }

    @Test func `A32: when credentials cannot be checked the answer is 500`() async throws {
        try await TestServer.run(authenticator: BrokenAuthenticator()) { server in
            let reply = try await server.send("GET", base + "/thing/a", as: TestServer.ruler)
            #expect(reply.status == 500)
            #expect(reply.code == "InternalServerError")
            #expect(reply.message.contains("incidentId"))
            #expect(try await server.send("GET", base + "/ping").status == 200)
        }
    }
}
