// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import Schedules
import Synchronization
import Taskcluster

/// A queue and a hooks service that fail when tests tell them to, and write down what they are asked.
///
/// The real ones are in the tests of processes; these can be away for minutes of a clock that tests move, lose answers, and
/// hold thousands of tasks.
final class QueueDouble: HTTPTransport {
    struct Member: Sendable {
        var state: String
        var reason: String?
        var name: String
        var dependencies: [String] = []
        var group: String
        var kind = ""
        var task: JSONValue = [:]
    }

    struct State: Sendable {
        var tasks: [String: Member] = [:]
        /// The tasks of groups, in the order of the list.
        var groups: [String: [String]] = [:]
        var sealed: Set<String> = []
        /// How hooks react.
        var hookSchema: JSONValue = ["type": "object"]
        /// Whether a hook's task gets the id that the payload names.
        var namesTasks = true
        var fires: [(id: String, time: Timestamp)] = []
        /// Answers to the next triggers, instead of the true one, after the hook has fired.
        var lostAnswers = 0
        /// Triggers that fail before the hook fires, with a status.
        var triggerStatuses: [Int] = []
        /// What every request is answered with, while set.
        var outage: Int?
        var artifacts: [String: String] = [:]
        /// The order of what happened.
        var log: [String] = []
        var pageSize = 1000
    }

    let state = Mutex(State())
    private let clock: @Sendable () -> Timestamp

    init(clock: @escaping @Sendable () -> Timestamp) {
        self.clock = clock
    }

    // MARK: - What tests do

    /// Adds a task to a group; answers its id.
    @discardableResult
    func add(
        _ group: String,
        _ taskState: String = "completed",
        id: String = Slugid.make(),
        reason: String? = nil,
        name: String = "task",
        kind: String = "",
        dependencies: [String] = []
    ) -> String {
        state.withLock { state in
            state.groups[group, default: []].append(id)
            state.tasks[id] = Member(
                state: taskState,
                reason: reason,
                name: name,
                dependencies: dependencies,
                group: group,
                kind: kind
            )
        }
        return id
    }

    func set(_ id: String, _ taskState: String, reason: String? = nil) {
        state.withLock { state in
            state.tasks[id]?.state = taskState
            state.tasks[id]?.reason = reason
        }
    }

    func change(_ body: @Sendable (inout State) -> Void) {
        state.withLock { body(&$0) }
    }

    /// What was asked for that changes something.
    var log: [String] { state.withLock { $0.log } }
    func count(_ word: String) -> Int { log.count { $0.hasPrefix(word) } }

    // MARK: - The services

    func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let url = request.url.split(separator: "/api/", maxSplits: 1).last.map(String.init) ?? request.url
        let parts = url.split(separator: "?", maxSplits: 1)
        let path = parts[0].split(separator: "/").map(String.init)
        let query = parts.count > 1 ? String(parts[1]) : ""
        var body: JSONValue = [:]
        if case .bytes(let bytes) = request.body { body = (try? JSONValue(parsing: bytes)) ?? [:] }
        let answer: (status: Int, body: String)? = state.withLock { state in
            if let outage = state.outage { return (outage, #"{"code": "Outage", "message": "away"}"#) }
            return self.answer(&state, request.method, path, query, body)
        }
        guard let answer else { throw HTTPClientError(.timeout, "no answer") }
        return HTTPResponse(status: answer.status, body: Array(answer.body.utf8))
    }

    private static let unknown = (404, #"{"code": "ResourceNotFound", "message": "unknown"}"#)

    private func answer(
        _ state: inout State,
        _ method: String,
        _ path: [String],
        _ query: String,
        _ body: JSONValue
    ) -> (Int, String)? {
        switch (method, path.first ?? "", path.dropFirst(2).first ?? "") {
        case ("GET", "queue", "task-group"): return list(&state, path[3], query)
        case ("POST", "queue", "task-group"):
            state.log.append("\(path[4]) \(path[3])")
            guard state.groups[path[3]] != nil else { return Self.unknown }
            if path[4] == "seal" {
                state.sealed.insert(path[3])
            } else {
                guard state.sealed.contains(path[3]) else { return (409, #"{"code": "RequestConflict"}"#) }
                for id in state.groups[path[3], default: []]
                where ["unscheduled", "pending", "running"].contains(state.tasks[id]?.state) {
                    state.tasks[id]?.state = "exception"
                    state.tasks[id]?.reason = "canceled"
                }
            }
            return (200, "{}")
        case (_, "queue", "task"): return task(&state, method, path, body)
        case (_, "hooks", _): return hook(&state, method, path, body)
        default: return Self.unknown
        }
    }

    private func list(_ state: inout State, _ group: String, _ query: String) -> (Int, String) {
        guard let ids = state.groups[group] else { return Self.unknown }
        let start =
            query.split(separator: "&").first { $0.hasPrefix("continuationToken=") }
            .flatMap { Int($0.split(separator: "=")[1]) } ?? 0
        var reply: JSONObject = [
            "taskGroupId": .string(group), "expires": "2030-01-01T00:00:00.000Z",
            "tasks": .array(ids.dropFirst(start).prefix(state.pageSize).map { entry(state, $0) }),
        ]
        if state.sealed.contains(group) { reply["sealed"] = "2029-01-01T00:00:00.000Z" }
        if start + state.pageSize < ids.count { reply["continuationToken"] = .string(String(start + state.pageSize)) }
        return (200, JSONValue.object(reply).text())
    }

    private func entry(_ state: State, _ id: String) -> JSONValue {
        guard let member = state.tasks[id] else { return .null }
        var run: JSONObject = ["runId": 0]
        run["reasonResolved"] = member.reason.map { .string($0) }
        return [
            "status": [
                "taskId": .string(id), "taskGroupId": .string(member.group), "state": .string(member.state),
                "runs": [.object(run)],
            ],
            "task": [
                "metadata": ["name": .string(member.name)], "dependencies": JSONValue(member.dependencies),
                "tags": ["kind": .string(member.kind)], "taskGroupId": .string(member.group),
                "payload": member.task,
            ],
        ]
    }

    private func task(_ state: inout State, _ method: String, _ path: [String], _ body: JSONValue) -> (Int, String)? {
        let id = path[3]
        switch (method, path.dropFirst(4).first ?? "") {
        case ("PUT", ""):
            state.log.append("create \(id)")
            if let known = state.tasks[id] {
                return known.task == body ? (200, "{}") : (409, #"{"code": "RequestConflict"}"#)
            }
            let group = body["taskGroupId"]?.string ?? id
            state.tasks[id] = Member(state: "pending", name: "created", group: group, task: body)
            state.groups[group, default: []].append(id)
            return (200, "{}")
        case ("GET", "status"):
            guard state.tasks[id] != nil else { return Self.unknown }
            return (200, entry(state, id).text())
        case ("GET", "artifacts"):
            let name = path.dropFirst(5).joined(separator: "/").split(separator: "%2F").joined(separator: "/")
            guard let text = state.artifacts["\(id) \(name)"] else { return Self.unknown }
            return (200, text)
        case ("GET", ""):
            guard state.tasks[id] != nil else { return Self.unknown }
            return (200, (entry(state, id)["task"] ?? [:]).text())
        case ("POST", "cancel"):
            state.log.append("cancelTask \(id)")
            guard let member = state.tasks[id] else { return Self.unknown }
            guard ["unscheduled", "pending", "running"].contains(member.state) else {
                return (409, #"{"code": "RequestConflict"}"#)
            }
            state.tasks[id]?.state = "exception"
            state.tasks[id]?.reason = "canceled"
            return (200, "{}")
        default: return Self.unknown
        }
    }

    private func hook(_ state: inout State, _ method: String, _ path: [String], _ body: JSONValue) -> (Int, String)? {
        let name = path.dropFirst(3).prefix(2).joined(separator: "/")
        switch (method, path.dropFirst(5).first ?? "") {
        case ("GET", ""): return (200, JSONValue.object(["triggerSchema": state.hookSchema]).text())
        case ("GET", "last-fires"):
            let fires = state.fires.map { fire -> JSONValue in
                ["taskId": .string(fire.id), "taskCreateTime": .string(fire.time.iso8601)]
            }
            return (200, JSONValue.object(["lastFires": .array(fires)]).text())
        case ("POST", "trigger"):
            state.log.append("trigger \(name)")
            if !state.triggerStatuses.isEmpty {
                return (state.triggerStatuses.removeFirst(), #"{"code": "AsTold", "message": "as told"}"#)
            }
            let chosen = state.namesTasks ? body["taskId"]?.string : nil
            let id = chosen ?? Slugid.make()
            if state.tasks[id] == nil {
                state.log.append("fire \(name)")
                state.tasks[id] = Member(state: "pending", name: name, group: id, task: body)
                state.groups[id, default: []].append(id)
                state.fires.append((id, clock()))
            }
            if state.lostAnswers > 0 {
                state.lostAnswers -= 1
                return nil
            }
            return (200, JSONValue.object(["taskId": .string(id)]).text())
        default: return Self.unknown
        }
    }
}
