// SPDX-License-Identifier: MPL-2.0

public import APIServer
import JSON
import Schedules
import StepKit

/// A step service that only pretends, below `/mock`: for trying out pipelines, and what they do when steps go wrong.
extension PipelineAPI {
    /// Served where somebody has asked for it.
    public var mock: [Endpoint] {
        [
            endpoint(.put, "/mock/<uid>", "putMock", verb: "create", "Pretend a step", putMock),
            endpoint(.get, "/mock/<uid>", "mock", verb: "view", "Read what is pretended") { request, _ in
                .json(try await found(request).body)
            },
            endpoint(.get, "/mock/<uid>/definition", "mockDefinition", verb: "view", "Read it") { request, _ in
                .json(try await found(request).body)
            },
            endpoint(.get, "/mock/<uid>/status", "mockStatus", verb: "view", "Read its state") { request, _ in
                let mock = try await found(request)
                if mock.isGarbage, mock.state(at: service.store.now()) == "running" {
                    return .text("<html>nonsense</html>", contentType: "text/html")
                }
                return status(mock)
            },
            endpoint(.post, "/mock/<uid>/cancel", "cancelMock", verb: "cancel", "Cancel it") { request, _ in
                let mock = try await found(request)
                try await mocks.cancel(mock, at: service.store.now())
                let now = try await found(request)
                guard now.cancelled != nil else {
                    throw StepProblem.conflict("step_closed", "The step is \(now.result)")
                }
                return status(now)
            },
            endpoint(.delete, "/mock/<uid>", "deleteMock", verb: "delete", "Delete it") { request, _ in
                try await mocks.remove(found(request).uid)
                return .json([:])
            },
        ]
    }

    private var mocks: MockStore { MockStore(pool: service.store.pool) }

    private func found(_ request: APIRequest) async throws -> MockStore.Mock {
        let uid = request.parameter("uid")
        guard let mock = try await mocks.find(uid) else { throw StepProblem.unknown(uid) }
        return mock
    }

    private func status(_ mock: MockStore.Mock) -> APIResponse {
        let now = service.store.now()
        let state = mock.state(at: now)
        let words = ["running": "in_progress", "completed": "success", "cancelled": "cancelled"]
        var json: JSONObject = [
            "uid": .string(mock.uid), "state": .string(state), "status": .string(words[state] ?? "failure"),
            "message": "", "created": .string(mock.created.iso8601), "updated": .string(mock.created.iso8601),
            "attempt": 1, "output": [:], "info": ["mock": true], "links": [],
        ]
        if state != "running" {
            json["finished"] = .string(mock.end.iso8601)
            json["updated"] = .string(mock.end.iso8601)
            if state == "completed" { json["completed"] = json["finished"] }
        }
        return .json(.object(json))
    }

    /// What is pretended: for how long, and how it ends; attempts up to `fail_first` fail.
    private func putMock(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let uid = request.parameter("uid")
        // The name is checked as a pipeline's would be, since both are called the same way.
        if let problem = StepUID.problem(with: uid) { throw StepProblem.invalid(problem, code: "invalid_uid") }
        let body = try request.jsonObject()
        try body.allowOnly(["uid", "parameters"])
        if let named = body["uid"], named != .string(uid) {
            throw StepProblem.invalid("The uid of the body is not that of the path", code: "uid_mismatch")
        }
        let parameters = body["parameters"]?.object ?? [:]
        try parameters.allowOnly(["duration_s", "result", "fail_first", "garbage"])
        let seconds = parameters["duration_s"].map { $0.double ?? -1 } ?? 100
        let failing = parameters["fail_first"].map { $0.int ?? -1 } ?? 0
        var result = parameters["result"].map { $0.string ?? "" } ?? "completed"
        guard (0...2_592_000).contains(seconds), failing >= 0, ["completed", "failed", "exception"].contains(result)
        else {
            throw StepProblem.invalid(
                "duration_s has to be a number of seconds, fail_first a count, result completed, failed or exception"
            )
        }
        let attempt = request.header("x-shipit-attempt").flatMap { Int($0) } ?? 1
        if attempt <= failing { result = "failed" }
        let mock = MockStore.Mock(
            uid: uid,
            body: .object(body),
            duration: .milliseconds(Int(seconds * 1000)),
            result: result,
            isGarbage: parameters["garbage"] == true,
            created: service.store.now()
        )
        let stored = try await mocks.add(mock)
        guard let stored, CanonicalJSON.bytes(stored.body) == CanonicalJSON.bytes(mock.body) else {
            throw StepProblem.conflict("definition_differs", "There is another step \(uid)")
        }
        return .json([:])
    }
}
