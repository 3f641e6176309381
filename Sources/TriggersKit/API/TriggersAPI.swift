// SPDX-License-Identifier: MPL-2.0

import APIServer
import Core
import JSON
import Postgres
import Taskcluster

/// What operators ask about triggers.
struct TriggersAPI: Sendable {
    let triggers: [Trigger]
    let runs: RunStore
    let letters: LetterStore
    let removal: TriggerRemoval
    let wake: Signal

    private static let states = "^(waiting|firing|fired|declined|skipped)$"
    private static let name = "^[a-z0-9][a-z0-9-]{0,62}$"

    func api(schemas: SchemaStore) throws -> API {
        API(
            service: "triggers",
            title: "Triggers",
            description: """
                Triggers watch code review and builds, and have hooks fire once for each diff, commit or task group. This \
                API shows what they saw, and reads messages again that could not be read.
                """,
            schemas: schemas,
            endpoints: try triggerEndpoints() + runEndpoints() + letterEndpoints()
        )
    }

    private func triggerEndpoints() throws -> [Endpoint] {
        [
            Endpoint(
                .get,
                "/triggers",
                name: "listTriggers",
                scopes: try ScopeTemplate("triggers:list"),
                output: "v1/list-triggers-response.json",
                category: "Triggers",
                title: "List triggers",
                description: """
                    Lists the triggers that run, and what others left behind that are in no listener's file any more.
                    """,
                handler: listTriggers
            ),
            Endpoint(
                .delete,
                "/triggers/<name>",
                name: "removeTrigger",
                scopes: try ScopeTemplate("triggers:remove"),
                parameters: ["name": ParameterRule(Self.name)],
                output: "v1/remove-trigger-response.json",
                category: "Triggers",
                title: "Remove what a trigger left behind",
                description: """
                    Removes the queue of a trigger that no listener has in its file any more, with the messages that wait \
                    there, and gives up what it observed and did not deal with. Of a trigger that is still in a file only \
                    the bindings go that are in none. Refused while listeners have all of it in their files.
                    """,
                handler: removeTrigger
            ),
        ]
    }

    private func runEndpoints() throws -> [Endpoint] {
        [
            Endpoint(
                .get,
                "/runs",
                name: "listRuns",
                scopes: try ScopeTemplate("triggers:list"),
                query: [String: QueryRule].paging.merging(
                    ["trigger": QueryRule(Self.name), "state": QueryRule(Self.states), "stuck": .bool]
                ) { $1 },
                output: "v1/list-runs-response.json",
                category: "Triggers",
                title: "List runs",
                description: """
                    Lists what was observed, newest first: of one trigger, in one state, or with `stuck` what failed and \
                    is tried again.
                    """,
                handler: listRuns
            ),
            Endpoint(
                .post,
                "/runs/<runId>/retry",
                name: "retryRun",
                scopes: try ScopeTemplate("triggers:retry"),
                parameters: ["runId": "^[0-9]{1,18}$"],
                output: "v1/retry-run-response.json",
                category: "Triggers",
                title: "Retry a run",
                description: "Looks at once at what waits after failures, and again at what was skipped.",
                handler: retry
            ),
        ]
    }

    private func letterEndpoints() throws -> [Endpoint] {
        [
            Endpoint(
                .get,
                "/dead-letters",
                name: "listDeadLetters",
                scopes: try ScopeTemplate("triggers:list"),
                query: [String: QueryRule].paging.merging(["trigger": QueryRule(Self.name)]) { $1 },
                output: "v1/list-dead-letters-response.json",
                category: "Messages",
                title: "List dead letters",
                description: "Lists the messages that a trigger could not read, newest first.",
                handler: listLetters
            ),
            Endpoint(
                .post,
                "/dead-letters/<letterId>/replay",
                name: "replayDeadLetter",
                scopes: try ScopeTemplate("triggers:retry"),
                parameters: ["letterId": "^[0-9]{1,18}$"],
                output: "v1/replay-response.json",
                category: "Messages",
                title: "Replay a dead letter",
                description: """
                    Reads a message as if it had just come, by the trigger as it is now. What it is about triggers its hook \
                    once, however often it is replayed.
                    """,
                handler: replay
            ),
        ]
    }

    // MARK: - Runs

    @Sendable private func listTriggers(_ request: APIRequest) async throws -> APIResponse {
        .json([
            "triggers": .array(
                triggers.map { trigger in
                    [
                        "name": .string(trigger.name), "type": .string(trigger.type.rawValue),
                        "hookGroupId": .string(trigger.hook.group), "hookId": .string(trigger.hook.hook),
                    ]
                }
            ),
            "leftovers": .array(try await removal.leftovers().map(\.json)),
        ])
    }

    @Sendable private func removeTrigger(_ request: APIRequest) async throws -> APIResponse {
        let name = request.parameter("name")
        let outcome: TriggerRemoval.Outcome
        do { outcome = try await removal.remove(name) } catch let refusal as TriggerRemoval.Refusal {
            switch refusal {
            case .unknown: throw APIError(.resourceNotFound, "Nothing is left of a trigger \(name)")
            case .used(let reason): throw APIError(.requestConflict, reason)
            case .broker(let reason):
                throw APIError(.custom("ServiceUnavailable", 503), "The broker does not help: \(reason)")
            }
        }
        return .json([
            "name": .string(name),
            "queues": .array(
                outcome.queues.map { ["queue": .string($0.name), "messages": JSONValue($0.messages)] }
            ),
            "bindings": .array(
                outcome.bindings.map { use in
                    [
                        "queue": .string(use.queue), "exchange": .string(use.exchange),
                        "routingKey": .string(use.routingKey),
                    ]
                }
            ),
            "runs": JSONValue(outcome.runs),
        ])
    }

    @Sendable private func listRuns(_ request: APIRequest) async throws -> APIResponse {
        let page = request.page
        let rows = try await runs.list(
            trigger: request.query["trigger"],
            state: request.query["state"],
            isStuck: request.flag("stuck"),
            before: try page.int(0),
            limit: page.fetch
        )
        return .json(page.reply("runs", rows, columns: { [JSONValue($0.id)] }, json: { $0.json }))
    }

    @Sendable private func retry(_ request: APIRequest) async throws -> APIResponse {
        let id = request.parameter("runId")
        guard let state = try await runs.retry(Int(id) ?? 0) else {
            throw APIError(.resourceNotFound, "There is no such run")
        }
        wake.notify()
        return .json(["runId": .string(id), "state": .string(state)])
    }

    // MARK: - Dead letters

    @Sendable private func listLetters(_ request: APIRequest) async throws -> APIResponse {
        let page = request.page
        let rows = try await letters.list(
            trigger: request.query["trigger"],
            before: try page.int(0),
            limit: page.fetch
        )
        return .json(page.reply("deadLetters", rows, columns: { [JSONValue($0.id)] }, json: Self.shown))
    }

    private static func shown(_ letter: LetterStore.Letter) -> JSONValue {
        var json: JSONObject = [
            "letterId": .string(String(letter.id)),
            "trigger": .string(letter.trigger),
            "received": .string(letter.received.iso8601),
            "times": JSONValue(letter.times),
            "error": .string(letter.error),
            "exchange": .string(letter.delivery.exchange),
            "routingKey": .string(letter.delivery.routingKey),
            "body": .string(String(decoding: letter.delivery.body.prefix(10_000), as: UTF8.self)),
        ]
        if let replayed = letter.replayed { json["replayed"] = .string(replayed.iso8601) }
        return .object(json)
    }

    @Sendable private func replay(_ request: APIRequest) async throws -> APIResponse {
        let id = request.parameter("letterId")
        let triggers = triggers
        let count = try await runs.pool.transaction { connection -> Int in
            guard let letter = try await letters.lock(Int(id) ?? 0, on: connection) else {
                throw APIError(.resourceNotFound, "There is no such dead letter")
            }
            guard let trigger = triggers.first(where: { $0.name == letter.trigger }) else {
                throw APIError(.requestConflict, "The trigger \(letter.trigger) does not run any more")
            }
            let sightings: [Sighting]
            do throws(MessageReading.Problem) {
                sightings = try MessageReading.sightings(letter.delivery.body, for: trigger.source)
            } catch {
                throw APIError(.inputError, "The message still cannot be read: \(error)")
            }
            try await letters.noteReplayed(letter.id, on: connection)
            return try await runs.add(sightings, for: trigger, on: connection)
        }
        if count > 0 { wake.notify() }
        return .json(["letterId": .string(id), "runs": JSONValue(count)])
    }
}
