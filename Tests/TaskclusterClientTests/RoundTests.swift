// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPClient
import JSON
import Schedules
import Synchronization
import Taskcluster
import TaskclusterClient
import Testing

/// A deployment that answers by a function, and holds the first request until it is let go.
private final class HeldTransport: HTTPTransport {
    private let answer: @Sendable (HTTPRequest, JSONValue) -> HTTPResponse
    private let state = Mutex((requests: [HTTPRequest](), isOpen: false))
    private let opened = Signal()

    init(_ answer: @escaping @Sendable (HTTPRequest, JSONValue) -> HTTPResponse) {
        self.answer = answer
    }

    var requests: [HTTPRequest] { state.withLock { $0.requests } }

    func open() {
        state.withLock { $0.isOpen = true }
        opened.notify()
    }

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let isFirst = state.withLock { state in
            state.requests.append(request)
            return state.requests.count == 1
        }
        while isFirst, !state.withLock({ $0.isOpen }) { _ = await opened.wait(timeout: .milliseconds(50)) }
        guard case .bytes(let bytes) = request.body else { return HTTPResponse(status: 400) }
        return answer(request, (try? JSONValue(parsing: bytes)) ?? .null)
    }
}

/// Calls that are wanted at the same time and travel together.
@Suite(.timeLimit(.minutes(5)))
struct RoundTests {
    private static let refusal: JSONValue = ["code": "RequestConflict", "message": "taken\n---\n", "requestInfo": [:]]

    /// A queue that refuses tasks which say so, alone or among several.
    private static func queue(_ request: HTTPRequest, _ body: JSONValue) -> HTTPResponse {
        func status(_ task: JSONValue?) -> Int { task?["refuse"]?.int ?? 200 }
        guard request.url.hasSuffix("/tasks/create") else {
            let status = status(body)
            return HTTPResponse(status: status, body: (status == 200 ? ["status": [:]] : refusal).bytes())
        }
        let results = (body["tasks"]?.array ?? []).map { item -> JSONValue in
            let status = status(item["task"])
            var result: JSONValue = ["taskId": item["taskId"] ?? .null, "statusCode": JSONValue(status)]
            if status != 200 { result["error"] = refusal }
            return result
        }
        return HTTPResponse(status: 200, body: JSONValue.object(["results": .array(results)]).bytes())
    }

    /// Creates some tasks while the call for the first one is held; answers the errors of the others by their numbers.
    private func create(
        _ count: Int,
        through transport: HeldTransport,
        refusing refused: Set<Int> = [],
        _ status: Int = 409
    ) async -> [Int: TaskclusterError] {
        let client = TaskclusterClient(rootURL: "https://tc.example.com", credentials: { nil }, transport: transport)
        // With one call under way at most the others have to wait for each other.
        let creator = TaskCreator(client: client, concurrency: 1)
        let quick = RetryPolicy(attempts: 2, base: .milliseconds(1), maximum: .milliseconds(1))
        return await withTaskGroup(of: (Int, TaskclusterError?).self) { group in
            for number in 0..<count {
                group.addTask {
                    let definition = refused.contains(number) ? #"{"refuse":\#(status)}"# : "{}"
                    let task = TaskRequest(
                        taskID: "t\(number)",
                        definition: definition,
                        authorizedScopes: ["s\(number)"]
                    )
                    do throws(TaskclusterError) {
                        try await creator.create(task, retry: quick)
                        return (number, nil)
                    } catch {
                        return (number, error)
                    }
                }
                while number == 0, transport.requests.isEmpty { await Task.yield() }
            }
            while creator.waiting < count - 1 { await Task.yield() }
            transport.open()
            var errors: [Int: TaskclusterError] = [:]
            for await (number, error) in group { errors[number] = error }
            return errors
        }
    }

    @Test func `tasks that are wanted at the same time are created in one call, each by itself`() async throws {
        let transport = HeldTransport(Self.queue)
        let errors = await create(10, through: transport, refusing: [3])
        #expect(Array(errors.keys) == [3])
        #expect(errors[3]?.status == 409)
        #expect(errors[3]?.code == "RequestConflict")
        #expect(errors[3]?.message == "taken")
        #expect(errors[3]?.body == Self.refusal)
        #expect(errors[3]?.url == "https://tc.example.com/api/queue/v1/task/t3")
        let requests = transport.requests
        #expect(requests.map(\.method) == ["PUT", "POST"])
        guard case .bytes(let bytes) = requests.last?.body else { throw BodyMissing() }
        let tasks = try #require(try JSONValue(parsing: bytes)["tasks"]?.array)
        #expect(Set(tasks.compactMap { $0["taskId"]?.string }) == Set((1..<10).map { "t\($0)" }))
        for task in tasks {
            let number = task["taskId"]?.string?.dropFirst() ?? ""
            #expect(task["authorizedScopes"] == ["s\(number)"])
        }
    }

    @Test func `a failure of one task that may pass is repeated for that task`() async {
        let transport = HeldTransport(Self.queue)
        let errors = await create(5, through: transport, refusing: [2], 503)
        #expect(errors.mapValues(\.status) == [2: 503])
        #expect(transport.requests.map(\.method) == ["PUT", "POST", "PUT"])
    }

    @Test(arguments: [404, 405, 400, 403])
    func `a queue that takes one task at a time is sent one call for each`(_ status: Int) async {
        let transport = HeldTransport { request, body in
            request.method == "POST" ? HTTPResponse(status: status) : Self.queue(request, body)
        }
        let errors = await create(6, through: transport, refusing: [4])
        #expect(errors.mapValues(\.status) == [4: 409])
        let methods = transport.requests.map(\.method)
        #expect(methods.filter { $0 == "POST" }.count == 1)
        #expect(methods.filter { $0 == "PUT" }.count == 6)
    }

    @Test(arguments: [#"{}"#, #"<html>"#, #"{"results":[]}"#, #"{"results":[{"taskId":"x","statusCode":200}]}"#])
    func `an answer about several tasks that makes no sense is not believed`(_ text: String) async {
        let transport = HeldTransport { request, body in
            request.method == "POST"
                ? HTTPResponse(status: 200, body: Array(text.utf8)) : Self.queue(request, body)
        }
        #expect(await create(4, through: transport, refusing: [1]).mapValues(\.status) == [1: 409])
    }

    @Test func `a call for several that fails has failed for each`() async {
        let transport = HeldTransport { request, body in
            request.method == "POST" ? HTTPResponse(status: 500) : Self.queue(request, body)
        }
        let errors = await create(4, through: transport)
        #expect(errors.values.allSatisfy { $0.status == 500 })
        #expect(errors[0] == nil)
    }

    @Test func `verdicts about requests that come at the same time are asked for in one call`() async throws {
        let verdict: @Sendable (JSONValue) -> JSONValue = { request in
            AuthenticationResult.success(
                clientID: request["resource"]?.string ?? "",
                expires: Timestamp(milliseconds: 0),
                scopes: ["x"],
                hash: nil
            ).json
        }
        for isKnown in [true, false] {
            let transport = HeldTransport { request, body in
                guard request.url.hasSuffix("/several") else {
                    return HTTPResponse(status: 200, body: verdict(body).bytes())
                }
                guard isKnown else { return HTTPResponse(status: 404) }
                let verdicts = (body["requests"]?.array ?? []).map(verdict)
                return HTTPResponse(status: 200, body: JSONValue.object(["verdicts": .array(verdicts)]).bytes())
            }
            let authenticator = RemoteAuthenticator(
                rootURL: "https://tc.example.com",
                transport: transport,
                concurrency: 1
            )
            let names = try await withThrowingTaskGroup(of: (Int, String).self) { group in
                for number in 0..<8 {
                    group.addTask {
                        let request = AuthenticationRequest(method: "GET", resource: "/\(number)", host: "h", port: 80)
                        guard case .success(let name, _, _, _) = try await authenticator.authenticate(request) else {
                            return (number, "")
                        }
                        return (number, name)
                    }
                    while number == 0, transport.requests.isEmpty { await Task.yield() }
                }
                while authenticator.waiting < 7 { await Task.yield() }
                transport.open()
                var names: [Int: String] = [:]
                for try await (number, name) in group { names[number] = name }
                return names
            }
            #expect(names == Dictionary(uniqueKeysWithValues: (0..<8).map { ($0, "/\($0)") }))
            #expect(transport.requests.count == (isKnown ? 2 : 9))
        }
    }
}

private struct BodyMissing: Error {}
