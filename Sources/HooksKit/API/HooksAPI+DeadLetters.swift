// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Pulse
import Schedules
import Taskcluster

extension HooksAPI {
    func messageEndpoints() throws -> [Endpoint] {
        let mayList = try ScopeTemplate("hooks:list-dead-letters:<hookGroupId>/<hookId>")
        let letterRoute = Self.hookRoute + "/dead-letters/<letterId>"
        var parameters = Self.parameters
        parameters["letterId"] = "^[0-9]{1,18}$"
        return [
            Endpoint(
                .get,
                Self.hookRoute + "/unfired-messages",
                name: "listUnfiredMessages",
                scopes: mayList,
                parameters: Self.parameters,
                output: "v1/list-unfired-messages-response.json",
                category: "Hook Messages",
                stability: .experimental,
                title: "List messages that fired nothing",
                description: """
                    Lists the last messages from the bus that a filter declined or the trigger schema rejected, newest \
                    first. How many there were in all is part of the hook's status.
                    """,
                handler: listUnfired
            ),
            Endpoint(
                .get,
                Self.hookRoute + "/dead-letters",
                name: "listDeadLetters",
                scopes: mayList,
                query: .paging,
                parameters: Self.parameters,
                output: "v1/list-dead-letters-response.json",
                category: "Hook Messages",
                stability: .experimental,
                title: "List dead letters",
                description: """
                    Lists the messages from the bus that could not be turned into a fire, newest first: those that are \
                    no JSON, those a full queue pushed out, those that broke their consumer again and again.
                    """,
                handler: listDeadLetters
            ),
            Endpoint(
                .post,
                letterRoute + "/replay",
                name: "replayDeadLetter",
                scopes: try ScopeTemplate("hooks:trigger-hook:<hookGroupId>/<hookId>"),
                parameters: parameters,
                output: "v1/trigger-hook-response.json",
                category: "Hook Messages",
                stability: .experimental,
                title: "Replay a dead letter",
                description: """
                    Fires the hook with the message, by its present definition, as if the message had just come. \
                    Repeating the request answers the same task. Filters are not asked.
                    """,
                handler: replayDeadLetter
            ),
            Endpoint(
                .delete,
                letterRoute,
                name: "removeDeadLetter",
                scopes: try ScopeTemplate("hooks:modify-hook:<hookGroupId>/<hookId>"),
                parameters: parameters,
                category: "Hook Messages",
                stability: .experimental,
                title: "Remove a dead letter",
                description: "Forgets a dead letter; success also if there is none.",
                handler: removeDeadLetter
            ),
        ]
    }

    private var letters: DeadLetterStore { DeadLetterStore(pool: store.pool) }

    @Sendable func listUnfired(_ request: APIRequest) async throws -> APIResponse {
        let name = request.hookName
        guard try await store.hook(name) != nil else { throw APIError.noSuchHook }
        let messages = try await UnfiredStore(pool: store.pool).messages(of: name)
        return .json([
            "messages": .array(
                messages.map { message in
                    var json = Self.shown(message.delivery)
                    json["kind"] = JSONValue(message.kind.rawValue)
                    json["reason"] = JSONValue(message.reason)
                    json["received"] = JSONValue(message.received.iso8601)
                    json["cut"] = JSONValue(message.isCut)
                    return .object(json)
                }
            )
        ])
    }

    @Sendable func listDeadLetters(_ request: APIRequest) async throws -> APIResponse {
        let name = request.hookName
        guard try await store.hook(name) != nil else { throw APIError.noSuchHook }
        let page = request.page
        let rows = try await letters.letters(of: name, before: try page.int(0), limit: page.fetch)
        var answer: JSONValue = [
            "deadLetters": .array(
                rows.prefix(page.limit).map { letter in
                    var json = Self.shown(letter.delivery)
                    json["letterId"] = JSONValue(String(letter.id))
                    json["reason"] = JSONValue(letter.reason.rawValue)
                    json["error"] = JSONValue(letter.error)
                    json["received"] = JSONValue(letter.received.iso8601)
                    if let replayed = letter.replayed { json["replayed"] = JSONValue(replayed.iso8601) }
                    if let taskID = letter.taskID { json["taskId"] = JSONValue(taskID) }
                    return .object(json)
                }
            )
        ]
        if rows.count > page.limit, let last = rows.prefix(page.limit).last {
            answer["continuationToken"] = JSONValue(Continuation.encode([JSONValue(last.id)]))
        }
        return .json(answer)
    }

    /// A message as text, or in base64 when it is none.
    private static func shown(_ delivery: PulseDelivery) -> JSONObject {
        let text = String(validating: delivery.body, as: UTF8.self)
        var json: JSONObject = [
            "exchange": JSONValue(delivery.exchange),
            "routingKey": JSONValue(delivery.routingKey),
            "cc": JSONValue(delivery.cc),
            "body": JSONValue(text ?? Base64.encoded(delivery.body)),
            "encoding": text == nil ? "base64" : "utf-8",
        ]
        if let id = delivery.messageID { json["messageId"] = JSONValue(id) }
        return json
    }

    @Sendable func removeDeadLetter(_ request: APIRequest) async throws -> APIResponse {
        _ = try await letters.remove(Int(request.parameter("letterId")) ?? 0, of: request.hookName)
        return .json([:])
    }

    // MARK: - Replay

    private enum Replay: Sendable {
        case missing
        case unusable(String)
        case earlier(taskID: String?)
        case draft(FireDraft, Fire?)
    }

    @Sendable func replayDeadLetter(_ request: APIRequest) async throws -> APIResponse {
        let name = request.hookName
        let id = Int(request.parameter("letterId")) ?? 0
        let program: HookProgram?
        do { program = try await programs.program(of: name) } catch let failure as FireFailure {
            throw failure.reply(for: name)
        }
        guard let program else { throw APIError.noSuchHook }
        let started = Timestamp.now()
        let replay = try await store.pool.transaction { connection -> Replay in
            guard let letter = try await letters.lock(id, of: name, on: connection) else { return .missing }
            if letter.replayed != nil { return .earlier(taskID: letter.taskID) }
            let payload: JSONValue
            do { payload = try JSONValue(parsing: letter.delivery.body) } catch { return .unusable("\(error)") }
            let problems = program.schema.validate(payload)
            guard problems.isEmpty else {
                return .unusable(problems.map { $0.described() }.joined(separator: "; "))
            }
            let draft = replayed(letter, payload, of: name, program, at: started)
            if case .failed = draft.rendering { return .draft(draft, nil) }
            let fire = try await fires.accept([draft], slots: 1, on: connection).first
            var taskID: String?
            if case .task = draft.rendering { taskID = draft.taskID }
            try await letters.noteReplayed(id, taskID: taskID, at: started, on: connection)
            return .draft(draft, fire)
        }
        switch replay {
        case .missing: throw APIError(.resourceNotFound, "No such dead letter")
        case .unusable(let problem):
            throw APIError(
                .inputError,
                "The message cannot fire the hook: {{problem}}",
                details: ["problem": JSONValue(problem)]
            )
        case .earlier(let taskID): return Self.replayReply(taskID)
        case .draft(let draft, let fire):
            FiringLog.settled([draft])
            if case .failed(let failure) = draft.rendering { throw failure.reply(for: name) }
            // From here on the fire is the dispatcher's: what goes wrong is repeated and told in the history.
            if let fire { try await dispatcher.performNow(fire) }
            if case .task = draft.rendering { return Self.replayReply(draft.taskID) }
            return Self.replayReply(nil)
        }
    }

    private func replayed(
        _ letter: DeadLetter,
        _ payload: JSONValue,
        of name: HookName,
        _ program: HookProgram,
        at instant: Timestamp
    ) -> FireDraft {
        let extras = DeliveryIntake.names(of: letter.delivery, payload)
        let taskID = Slugid.make()
        return FireDraft(
            name: name,
            taskID: taskID,
            firedBy: .pulseMessage,
            context: extras,
            created: instant,
            started: instant,
            rendering: FiringContext(firedBy: .pulseMessage, taskID: taskID, created: instant, extras: extras)
                .render(program.template),
            deduplicationKey: "replay \(letter.id)"
        )
    }

    private static func replayReply(_ taskID: String?) -> APIResponse {
        guard let taskID else { return .json([:]) }
        return .json(["taskId": JSONValue(taskID), "status": ["taskId": JSONValue(taskID)]])
    }

    // MARK: - Status

    /// What the status of a hook with bindings tells about its listening, or nil for one without.
    func listening(_ hook: Hook) async throws -> JSONValue? {
        let bindings = hook.definition.bindings
        let state = try await ListenerStore(pool: store.pool).state(of: hook.definition.name)
        guard !bindings.isEmpty else { return nil }
        var seen: Set<BindingRoute> = []
        let shown = bindings.map(BindingRoute.init).filter { seen.insert($0).inserted }.map { route -> JSONValue in
            var json = route.json
            if let problem = state?.problems.first(where: { $0.route == route }) {
                json["state"] = "broken"
                json["reason"] = JSONValue(problem.reason)
                json["since"] = JSONValue(problem.since.iso8601)
                if let retry = state?.retryAt { json["nextRetry"] = JSONValue(retry.iso8601) }
            } else {
                json["state"] = state?.isInStep == true && state?.routes.contains(route) == true ? "bound" : "pending"
            }
            return json
        }
        var json: JSONValue = [
            "bindings": .array(shown),
            "messages": [
                "declined": JSONValue(state?.counts["declined"] ?? 0),
                "rejected": JSONValue(state?.counts["rejected"] ?? 0),
                "dead": JSONValue(state?.counts["dead"] ?? 0),
            ],
        ]
        if let queue = state?.queue, !queue.isEmpty { json["queue"] = JSONValue(queue) }
        if let problem = state?.problems.first(where: { $0.route == nil }) {
            json["problem"] = JSONValue(problem.reason)
        }
        return json
    }
}
