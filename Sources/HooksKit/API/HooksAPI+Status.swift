// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import JSON
import Schedules
import Taskcluster
import TaskclusterClient

extension HooksAPI {
    func statusEndpoints() throws -> [Endpoint] {
        [
            Endpoint(
                .get,
                Self.hookRoute + "/status",
                name: "getHookStatus",
                scopes: try ScopeTemplate("hooks:status:<hookGroupId>/<hookId>"),
                parameters: Self.parameters,
                output: "v1/hook-status.json",
                category: "Hook Status",
                stability: .deprecated,
                title: "Get hook status",
                description: "Tells what the last fire came to and when the next one is due.",
                handler: status
            ),
            Endpoint(
                .get,
                Self.hookRoute + "/last-fires",
                name: "listLastFires",
                scopes: try ScopeTemplate("hooks:list-last-fires:<hookGroupId>/<hookId>"),
                query: .paging,
                parameters: Self.parameters,
                output: "v1/list-lastFires-response.json",
                category: "Hook Status",
                title: "Get information about recent hook fires",
                description: "Lists the fires of a hook, newest first, with the present states of their tasks.",
                handler: listLastFires
            ),
        ]
    }

    @Sendable func status(_ request: APIRequest) async throws -> APIResponse {
        let name = request.hookName
        guard let hook = try await store.hook(name) else { throw APIError.noSuchHook }
        try await fires.settleEnds(of: name)
        var answer: JSONValue = ["lastFire": ["result": "no-fire"]]
        if let last = try await history.fires(of: name, limit: 1).first {
            var fire: JSONValue = ["result": JSONValue(last.result)]
            if last.result == "success" {
                fire["taskId"] = JSONValue(last.taskID)
            } else {
                fire["error"] = FireFailure.shown(record: last.error)
            }
            fire["time"] = JSONValue(last.time.iso8601)
            answer["lastFire"] = fire
        }
        if let pause = try await schedules.pause(of: name) {
            answer["paused"] = ["since": JSONValue(pause.since.iso8601), "clientId": JSONValue(pause.client)]
        } else if !hook.definition.schedule.isEmpty {
            let outstanding = try await history.outstandingInstant(of: name)
            answer["nextScheduledDate"] = JSONValue((outstanding ?? hook.nextScheduledDate).iso8601)
        }
        if let listening = try await listening(hook) { answer["listener"] = listening }
        return .json(answer)
    }

    @Sendable func listLastFires(_ request: APIRequest) async throws -> APIResponse {
        let name = request.hookName
        let page = request.page
        var before: (time: Timestamp, taskID: String)?
        if let time = try page.string(0), let taskID = try page.string(1) {
            guard let instant = Timestamp(time) else { throw Continuation.invalid }
            before = (instant, taskID)
        }
        if before == nil { try await fires.settleEnds(of: name) }
        let rows = try await history.fires(of: name, before: before, limit: page.fetch)
        guard !rows.isEmpty || before != nil else {
            throw APIError(.resourceNotFound, "No such hook or never fired")
        }
        let shown = rows.prefix(page.limit)
        let states = await TaskStates(client: client).states(of: shown.filter { $0.result == "success" }.map(\.taskID))
        var answer: JSONValue = [
            "lastFires": .array(
                shown.map { fire in
                    [
                        "hookGroupId": JSONValue(name.group),
                        "hookId": JSONValue(name.hook),
                        "firedBy": JSONValue(fire.firedBy),
                        "taskId": JSONValue(fire.taskID),
                        "taskCreateTime": JSONValue(fire.time.iso8601),
                        "result": JSONValue(fire.result),
                        "taskState": JSONValue(states[fire.taskID] ?? "unknown"),
                        "error": JSONValue(fire.error),
                    ]
                }
            )
        ]
        if rows.count > page.limit, let last = shown.last {
            answer["continuationToken"] = JSONValue(
                Continuation.encode([JSONValue(last.time.iso8601), JSONValue(last.taskID)])
            )
        }
        return .json(answer)
    }
}
