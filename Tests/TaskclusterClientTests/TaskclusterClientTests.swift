// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPClient
import JSON
import Schedules
import Taskcluster
import TaskclusterClient
import Testing

struct TaskclusterClientTests {
    static let taskID = "VdYnEtzpQs6ZdoNrVAj9Mw"
    static let token = "Zm9vYmFyLWFjY2Vzcy10b2tlbi0xMjM0"
    let now = Timestamp(milliseconds: 1_500_000_000_000)

    @Test func `segments travel encoded and queries in order`() {
        let client = client(StubTransport(.json(200, [:])))
        #expect(
            client.url("queue", ["claim-work", "p/wt", "c d+e ü"], query: [("b", "1 2"), ("a", "&")])
                == "https://tc.example.com/api/queue/v1/claim-work/p%2Fwt/c%20d%2Be%20%C3%BC?b=1%202&a=%26"
        )
    }

    @Test func `A9: a call is signed for the URL as sent and may limit its scopes`() async throws {
        let transport = StubTransport(.json(200, ["status": [:]]))
        let credentials = Hawk.Credentials(clientID: "me", accessToken: Self.token)
        _ = try await client(transport, credentials).queue.createTask(
            Self.taskID,
            ["a": 1],
            authorizedScopes: ["assume:hook-id:g/h"]
        )
        let request = try #require(transport.requests.first)
        #expect(request.headers["Content-Type"] == "application/json")
        #expect(request.body == .bytes(Array(#"{"a":1}"#.utf8)))
        let directory = CredentialDirectory(
            clients: ["me": Client(id: "me", accessToken: Self.token, scopes: ["assume:*"])],
            roles: RoleSet([Role(id: "hook-id:*", scopes: ["create:<..>"])])
        )
        let result = directory.authenticate(
            AuthenticationRequest(
                method: request.method,
                resource: "/api/queue/v1/task/\(Self.taskID)",
                host: "tc.example.com",
                port: 443,
                authorization: request.headers["Authorization"]
            ),
            now: now
        )
        guard case .success(_, _, let scopes, _) = result else { return #expect(Bool(false), "\(result)") }
        #expect(scopes == ["assume:anonymous", "assume:hook-id:g/h", "create:g/h"])
    }

    @Test func `without credentials nothing is signed`() async throws {
        let transport = StubTransport(.json(200, [:]))
        let client = client(transport)
        _ = try await client.queue.status(Self.taskID)
        #expect(transport.requests.first?.headers["Authorization"] == nil)
        #expect(transport.requests.first?.body == HTTPRequest.Body.none)
        #expect(await client.signedURL("queue", ["ping"]) == "https://tc.example.com/api/queue/v1/ping")
    }

    @Test func `private artifacts have signed URLs, public ones plain ones`() async {
        let credentials = Hawk.Credentials(clientID: "me", accessToken: Self.token)
        let queue = client(StubTransport(.json(200, [:])), credentials).queue
        let base = "https://tc.example.com/api/queue/v1/task/\(Self.taskID)"
        #expect(await queue.artifactURL(Self.taskID, name: "public/a b") == "\(base)/artifacts/public%2Fa%20b")
        let signed = await queue.artifactURL(Self.taskID, run: 0, name: "private/x")
        #expect(signed.hasPrefix("\(base)/runs/0/artifacts/private%2Fx?bewit="))
    }

    @Test func `5xx answers and failures of the network are repeated with a fresh signature`() async throws {
        let transport = StubTransport(
            .json(500, ["message": "x"]),
            .failure(HTTPClientError(.connect, "no")),
            .json(200, ["ok": true])
        )
        let credentials = Hawk.Credentials(clientID: "me", accessToken: Self.token)
        #expect(try await client(transport, credentials).call("queue", "GET", ["ping"]) == ["ok": true])
        #expect(Set(transport.requests.map { $0.headers["Authorization"] }).count == 3)
    }

    @Test func `by default a call is repeated five times, with pauses that double from a tenth of a second`() async {
        let policy = RetryPolicy.taskcluster
        #expect(policy.attempts == 6)
        for _ in 0..<50 {
            for (attempt, usual) in zip(2...6, [100, 200, 400, 800, 1600]) {
                let pause = policy.delay(before: attempt).milliseconds
                #expect((usual * 3 / 4...usual * 5 / 4).contains(Int(pause)), "\(attempt)")
            }
            #expect(policy.delay(before: 40) <= .seconds(30))
        }
        #expect(policy.delay(before: 1) == .zero)
    }

    @Test(arguments: [
        (HTTPClientError.Code.connect, true), (.timeout, true), (.aborted, true), (.tls, false), (.cancelled, false),
        (.tooLarge, false), (.invalidURL, false), (.file, false), (.other, false),
    ])
    func `failures of the network are repeated if they may pass`(_ code: HTTPClientError.Code, _ passes: Bool) async {
        let transport = StubTransport(.failure(HTTPClientError(code, "no")))
        let error = await #expect(throws: TaskclusterError.self) {
            try await client(transport).call("queue", "GET", ["ping"])
        }
        #expect(transport.requests.count == (passes ? 3 : 1))
        #expect(error?.status == nil)
        #expect(error?.code == code.name)
    }

    @Test func `a body is sent again with each repetition`() async throws {
        let transport = StubTransport(.json(502, .null), .json(200, [:]))
        _ = try await client(transport).call("queue", "PUT", ["task", Self.taskID], body: ["a": 1])
        #expect(transport.requests.map(\.body) == [.bytes(Array(#"{"a":1}"#.utf8)), .bytes(Array(#"{"a":1}"#.utf8))])
    }

    @Test func `a call whose task is cancelled ends in its pause`() async {
        let transport = StubTransport(.json(500, .null))
        let client = client(transport)
        let patient = RetryPolicy(attempts: 9, base: .seconds(60), maximum: .seconds(60))
        let call = Task { try await client.call("queue", "GET", ["ping"], retry: patient) }
        while transport.requests.isEmpty { await Task.yield() }
        call.cancel()
        await #expect(throws: TaskclusterError.self) { try await call.value }
        #expect(transport.requests.count == 1)
    }

    @Test func `repetition ends with the last failure`() async {
        let transport = StubTransport(.json(503, .null))
        let error = await #expect(throws: TaskclusterError.self) {
            try await client(transport).call("queue", "GET", ["ping"])
        }
        #expect(transport.requests.count == 3)
        #expect(error?.status == 503)
        #expect(error?.code == "HTTP503")
        #expect(error?.isRetriable == true)
    }

    @Test(arguments: [400, 401, 403, 404, 409, 429])
    func `other errors are not repeated and keep what the service said`(_ status: Int) async {
        let message = "No such task\n\n---\n\n* method:     task\n* errorCode:  ResourceNotFound"
        let transport = StubTransport(
            .json(status, ["code": "ResourceNotFound", "message": .string(message), "requestInfo": ["method": "task"]])
        )
        let error = await #expect(throws: TaskclusterError.self) {
            try await client(transport).call("queue", "GET", ["task", "x"], query: [("secret", "y")])
        }
        #expect(transport.requests.count == 1)
        #expect(error?.message == "No such task")
        #expect(error?.body?["requestInfo"]?["method"] == "task")
        #expect(
            error?.description
                == "GET https://tc.example.com/api/queue/v1/task/x: \(status) ResourceNotFound: No such task"
        )
    }

    @Test func `no content is null, a redirect is an answer`() async throws {
        #expect(try await client(StubTransport(.response(HTTPResponse(status: 204)))).call("x", "POST", []) == .null)
        let redirect = StubTransport(.json(303, ["url": "u"]))
        #expect(try await client(redirect).call("queue", "GET", ["a"]) == ["url": "u"])
    }

    @Test func `an answer that is not JSON is an error of its own`() async {
        let transport = StubTransport(.response(HTTPResponse(status: 200, body: Array("<html>".utf8))))
        let error = await #expect(throws: TaskclusterError.self) {
            try await client(transport).call("queue", "GET", ["ping"])
        }
        #expect(error?.code == "InvalidResponse")
        #expect(error?.isRetriable == false)
    }

    @Test func `lists are read page by page`() async throws {
        let transport = StubTransport(
            .json(200, ["tasks": [1, 2], "continuationToken": "t"]),
            .json(200, ["tasks": [3]])
        )
        #expect(try await client(transport).queue.allTasks(ofGroup: Self.taskID) == [1, 2, 3])
        #expect(transport.requests.last?.url.hasSuffix("/list?continuationToken=t") == true)
    }

    @Test func `a claim is never repeated`() async {
        let transport = StubTransport(.json(500, .null))
        await #expect(throws: TaskclusterError.self) {
            try await client(transport).queue.claimWork("p/wt", workerGroup: "g", workerID: "w")
        }
        #expect(transport.requests.count == 1)
        #expect(transport.requests.first?.url.hasSuffix("/claim-work/p%2Fwt") == true)
    }

    @Test func `A32: a verdict comes from the auth service, its absence is an error`() async throws {
        let verdict = AuthenticationResult.none(scopes: ["assume:anonymous"], expires: now)
        let request = AuthenticationRequest(method: "GET", resource: "/x", host: "h", port: 80)
        let good = StubTransport(.json(200, verdict.json))
        let authenticator = RemoteAuthenticator(rootURL: "https://tc.example.com/", transport: good)
        #expect(try await authenticator.authenticate(request) == verdict)
        #expect(good.requests.first?.url == "https://tc.example.com/api/auth/v1/authenticate-hawk")
        #expect(good.requests.first?.body == .bytes(request.json.bytes()))
        let bad = RemoteAuthenticator(rootURL: "https://tc.example.com", transport: StubTransport(.json(500, .null)))
        await #expect(throws: TaskclusterError.self) { try await bad.authenticate(request) }
    }

    private func client(_ transport: StubTransport, _ credentials: Hawk.Credentials? = nil) -> TaskclusterClient {
        let now = now
        return TaskclusterClient(
            rootURL: "https://tc.example.com/",
            credentials: { credentials },
            transport: transport,
            retry: RetryPolicy(attempts: 3, base: .milliseconds(1), maximum: .milliseconds(2)),
            now: { now }
        )
    }
}
