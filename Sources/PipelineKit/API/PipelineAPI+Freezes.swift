// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Schedules
import StepKit

/// Times during which nothing starts, and names that one step at a time holds.
extension PipelineAPI {
    var freezes: [Endpoint] {
        [
            endpoint(.get, "/freezes", "listFreezes", verb: "view", "List freezes") { _, _ in
                .json(["freezes": .array(try await service.freezes.list())])
            },
            endpoint(.get, "/freezes/<name>", "freeze", verb: "view", "Read a freeze") { request, _ in
                let uid = request.parameter("name")
                guard let freeze = try await service.freezes.list(uid).first else {
                    throw StepProblem(404, "not_found", "There is no freeze \(uid)")
                }
                return .json(freeze)
            },
            endpoint(.put, "/freezes/<name>", "saveFreeze", verb: "freeze/manage", "Make a freeze", saveFreeze),
            endpoint(.delete, "/freezes/<name>", "deleteFreeze", verb: "freeze/manage", "End a freeze", deleteFreeze),
        ]
    }

    var locks: [Endpoint] {
        [
            endpoint(.get, "/locks", "listLocks", verb: "view", "List locks") { _, _ in
                let (held, wanted) = try await service.runs.locks()
                return .json(["held": .array(held.map(Self.json)), "wanted": .array(wanted.map(Self.json))])
            },
            endpoint(.delete, "/locks/<name>", "breakLock", verb: "lock/break", "Take a lock away", breakLock),
        ]
    }

    private static func json(_ lock: RunStore.Lock) -> JSONValue {
        [
            "name": .string(lock.name), "pipeline": .string(lock.pipeline), "step": .string(lock.step),
            "since": .string(lock.since.iso8601),
        ]
    }

    // MARK: - Freezes

    private func saveFreeze(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let freeze = try freeze(Self.name(request), try request.jsonObject())
        try await service.freezes.save(freeze, by: actor.name, at: service.store.now())
        try await service.freezesChanged()
        return .json([:])
    }

    private func freeze(_ uid: String, _ body: JSONObject) throws(StepProblem) -> FreezeStore.Request {
        try body.allowOnly([
            "uid", "name", "reason", "start", "end", "cron_start", "cron_end", "tz", "match", "allow_override",
        ])
        // What is misspelt must not make a freeze of everything.
        guard let match = (body["match"] ?? [:]).object else { throw StepProblem.invalid("match has to be an object") }
        try match.allowOnly(["labels", "api_url_prefix", "step_uid_glob"])
        guard let labels = (match["labels"] ?? [:]).object, labels.values.allSatisfy({ $0.string != nil }) else {
            throw StepProblem.invalid("match.labels has to be an object of texts")
        }
        let (start, end, cron, zone) = try period(body)
        let scopes = body["allow_override"] ?? []
        guard let list = scopes.array, list.count <= 20, list.allSatisfy({ $0.string != nil }) else {
            throw StepProblem.invalid("allow_override has to be a list of up to 20 scopes")
        }
        return FreezeStore.Request(
            uid: uid,
            name: try Self.text(body, "name") ?? uid,
            reason: try Self.reason(body),
            start: start,
            end: end,
            cron: cron,
            zone: zone,
            labels: labels,
            apiPrefix: try Self.text(match, "api_url_prefix"),
            stepPattern: try Self.text(match, "step_uid_glob"),
            overrideScopes: list.compactMap(\.string)
        )
    }

    private static func text(_ body: JSONObject, _ name: String) throws(StepProblem) -> String? {
        guard let value = body[name] else { return nil }
        guard let text = value.string, (1...500).contains(text.utf8.count) else {
            throw StepProblem.invalid("\(name) has to be a text of up to 500 characters")
        }
        return text
    }

    private typealias Period = (
        start: Timestamp, end: Timestamp, cron: (start: CronExpression, end: CronExpression)?, zone: String
    )

    private func period(_ body: JSONObject) throws(StepProblem) -> Period {
        guard body["cron_start"] != nil || body["cron_end"] != nil else {
            guard let start = body["start"]?.string.flatMap({ Timestamp($0) }),
                let end = body["end"]?.string.flatMap({ Timestamp($0) }), start < end
            else { throw StepProblem.invalid("start and end have to be dates and times, start first") }
            return (start, end, nil, "UTC")
        }
        guard body["start"] == nil, body["end"] == nil else {
            throw StepProblem.invalid("A freeze has start and end, or cron_start and cron_end")
        }
        let zone = try Self.text(body, "tz") ?? "UTC"
        do {
            _ = try service.freezes.zones.rules(of: zone)
        } catch {
            throw StepProblem.invalid("tz: \(error)")
        }
        let start = try Self.cron(body, "cron_start")
        let end = try Self.cron(body, "cron_end")
        return (service.store.now(), .farFuture, (start, end), zone)
    }

    private static func cron(_ body: JSONObject, _ name: String) throws(StepProblem) -> CronExpression {
        guard let text = body[name]?.string else { throw StepProblem.invalid("\(name) has to be a cron expression") }
        do {
            return try CronExpression(text)
        } catch {
            throw StepProblem.invalid("\(name): \(error)")
        }
    }

    private func deleteFreeze(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let uid = request.parameter("name")
        guard try await service.freezes.delete(uid, by: actor.name) else {
            throw StepProblem(404, "not_found", "There is no freeze \(uid)")
        }
        try await service.freezesChanged()
        return .json([:])
    }

    // MARK: - Locks

    private func breakLock(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let name = request.parameter("name")
        let body = try request.jsonObject()
        try body.allowOnly(["reason"])
        let reason: JSONObject = body["reason"] == nil ? [:] : ["reason": .string(try Self.reason(body))]
        let broken = try await service.journal.changing("lock_broken", name, by: actor.name, reason) { connection in
            try await service.runs.breakLock(name, on: connection)
        }
        guard let lock = broken else {
            throw StepProblem(404, "not_found", "Nobody holds the lock \(name)")
        }
        _ = try await service.store.change(lock.pipeline, actor: actor.name) { change in
            var facts = reason
            facts["lock"] = .string(name)
            change.record("lock_broken", subject: lock.step, facts)
        }
        try await service.store.wake(service.runs.waiters([name]))
        return .json(Self.json(lock))
    }
}

extension PipelineService {
    /// Lets the pipelines that go on find out about freezes; what is beyond the limit finds out a little later.
    func freezesChanged() async throws {
        try await store.wake(runs.open(limit: 1000))
    }
}
