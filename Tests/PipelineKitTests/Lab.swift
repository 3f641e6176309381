// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import StepTestSupport
import Synchronization

/// A step service that does what tests tell it to, and writes down what it is asked.
final class Lab: Sendable {
    /// What a step does.
    struct Behaviour: Sendable {
        /// How it ends; nil goes on until told otherwise.
        var result: String? = "completed"
        /// How many questions are answered with `running` first.
        var polls = 0
        var output: JSONValue = [:]
        /// Answers to the first calls of `PUT`, before it is accepted.
        var putStatuses: [Int] = []
        /// Answers to the first questions about the status, as bodies.
        var statuses: [String] = []
        /// Statuses of the first questions.
        var statusCodes: [Int] = []
        /// Where `PUT` sends callers.
        var redirect: String?
        /// Whether calls are never answered.
        var hangs = false
    }

    struct Stored: Sendable {
        var body: JSONValue
        var state = "running"
        var polls = 0
        /// On whose behalf it was asked for.
        var requester: String?
    }

    struct State: Sendable {
        var behaviours: [String: Behaviour] = [:]
        /// What happens once between an answer and its arrival.
        var meanwhile: [String: @Sendable () async throws -> Void] = [:]
        var steps: [String: Stored] = [:]
        var puts: [String: Int] = [:]
        /// How often something new was begun under a name.
        var begun: [String: Int] = [:]
        /// The order of what happened.
        var log: [String] = []
        var concurrent = 0
        var mostConcurrent = 0
    }

    let state = Mutex(State())

    func set(_ uid: String, _ behaviour: Behaviour) {
        state.withLock { $0.behaviours[uid] = behaviour }
    }

    /// Lets something happen after the service has made up its next answer about a step, before that is sent.
    func meanwhile(_ uid: String, _ body: @escaping @Sendable () async throws -> Void) {
        state.withLock { $0.meanwhile[uid] = body }
    }

    private func whileAnswering(_ uid: String) async throws {
        let body = state.withLock { $0.meanwhile.removeValue(forKey: uid) }
        try await body?()
    }

    /// Ends a step that goes on, or will go on.
    func finish(_ uid: String, _ result: String = "completed") {
        state.withLock { state in
            if state.steps[uid] == nil { state.behaviours[uid]?.result = result }
            state.steps[uid]?.state = result
            state.log.append("\(result) \(uid)")
        }
    }

    func forget(_ uid: String) {
        state.withLock { _ = $0.steps.removeValue(forKey: uid) }
    }

    var log: [String] { state.withLock { $0.log } }
    func puts(_ uid: String) -> Int { state.withLock { $0.puts[uid] ?? 0 } }
    func begun(_ uid: String) -> Int { state.withLock { $0.begun[uid] ?? 0 } }
    func body(_ uid: String) -> JSONValue? { state.withLock { $0.steps[uid]?.body } }
    func requester(_ uid: String) -> String? { state.withLock { $0.steps[uid]?.requester } }
    func isRunning(_ uid: String) -> Bool { state.withLock { $0.steps[uid]?.state == "running" } }

    // MARK: - The service

    func api() -> API {
        API(
            service: "lab",
            title: "Lab",
            description: "Steps for tests.",
            schemas: SchemaStore(directory: "/nowhere"),
            endpoints: [
                endpoint(.put, "/<uid>", put),
                endpoint(.get, "/<uid>/status", status),
                endpoint(.get, "/<uid>/definition") { [self] request in
                    guard let body = body(request.parameter("uid")) else { return .json([:], status: 404) }
                    return .json(body)
                },
                endpoint(.post, "/<uid>/cancel", cancel),
            ],
            mount: .root,
            errors: .problem
        )
    }

    private func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        _ handler: @escaping Endpoint.Handler
    ) -> Endpoint {
        Endpoint(
            method,
            route,
            name: "lab",
            query: ["*": .any],
            category: "Lab",
            title: "Lab",
            description: "Lab.",
            handler: handler
        )
    }

    private func put(_ request: APIRequest) async throws -> APIResponse {
        let uid = request.parameter("uid")
        let body = try JSONValue(parsing: request.rawBody)
        let behaviour = state.withLock { state in
            state.puts[uid, default: 0] += 1
            state.log.append("put \(uid)")
            return state.behaviours[uid] ?? Behaviour()
        }
        if behaviour.hangs { try await Task.sleep(for: .seconds(3600)) }
        if let redirect = behaviour.redirect { return .bodyless(302, headers: ["Location": redirect]) }
        let answer: APIResponse = state.withLock { state in
            if var known = state.behaviours[uid], !known.putStatuses.isEmpty {
                let status = known.putStatuses.removeFirst()
                state.behaviours[uid] = known
                return .json(["detail": "as told"], status: status)
            }
            if let step = state.steps[uid] {
                return step.body == body ? .json([:]) : .json(["detail": "another"], status: 409)
            }
            state.steps[uid] = Stored(body: body, requester: request.header("x-shipit-requester"))
            state.begun[uid, default: 0] += 1
            state.log.append("begin \(uid)")
            state.concurrent += 1
            state.mostConcurrent = max(state.mostConcurrent, state.concurrent)
            return .json([:])
        }
        try await whileAnswering(uid)
        return answer
    }

    private func status(_ request: APIRequest) async throws -> APIResponse {
        let uid = request.parameter("uid")
        let answer: APIResponse = state.withLock { state in
            var behaviour = state.behaviours[uid] ?? Behaviour()
            defer { state.behaviours[uid] = behaviour }
            if !behaviour.statusCodes.isEmpty {
                return .json(["detail": "as told"], status: behaviour.statusCodes.removeFirst())
            }
            if !behaviour.statuses.isEmpty {
                return .text(behaviour.statuses.removeFirst(), contentType: "text/html")
            }
            guard var step = state.steps[uid] else { return .json(["detail": "unknown"], status: 404) }
            step.polls += 1
            if step.state == "running", let result = behaviour.result, step.polls > behaviour.polls {
                step.state = result
                state.concurrent -= 1
                state.log.append("\(result) \(uid)")
            }
            state.steps[uid] = step
            return .json([
                "uid": .string(uid), "state": .string(step.state), "message": .string("\(uid) is \(step.state)"),
                "output": behaviour.output,
            ])
        }
        try await whileAnswering(uid)
        return answer
    }

    private func cancel(_ request: APIRequest) async throws -> APIResponse {
        let uid = request.parameter("uid")
        return state.withLock { state in
            state.log.append("cancel \(uid)")
            guard state.steps[uid] != nil else { return .json([:], status: 404) }
            state.steps[uid]?.state = "cancelled"
            return .json(["uid": .string(uid), "state": "cancelled"])
        }
    }

    /// Serves for as long as a body runs.
    func serve<R: Sendable>(
        port: Int = 0,
        _ body: @Sendable @escaping (String) async throws -> R
    ) async throws -> R {
        try await withThrowingTaskGroup(of: Void.self) { group in
            let url = await StepServers.serve(api(), authenticator: nil, port: port, in: &group)
            defer { group.cancelAll() }
            return try await body(url)
        }
    }
}
