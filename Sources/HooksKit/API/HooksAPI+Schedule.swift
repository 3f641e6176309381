// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import Schedules
import Taskcluster

extension HooksAPI {
    func scheduleEndpoints() throws -> [Endpoint] {
        let mayChange = try ScopeTemplate("hooks:modify-hook:<hookGroupId>/<hookId>")
        return [
            Endpoint(
                .post,
                Self.hookRoute + "/pause",
                name: "pauseHook",
                scopes: mayChange,
                parameters: Self.parameters,
                output: "v1/hook-status.json",
                category: "Schedules",
                stability: .experimental,
                title: "Pause a hook's schedule",
                description: """
                    Stops the schedule until it is resumed; triggers and messages fire the hook all the same. Instants \
                    that pass meanwhile are skipped. A paused hook stays paused when its definition changes.
                    """,
                handler: pauseHook
            ),
            Endpoint(
                .post,
                Self.hookRoute + "/resume",
                name: "resumeHook",
                scopes: mayChange,
                parameters: Self.parameters,
                output: "v1/hook-status.json",
                category: "Schedules",
                stability: .experimental,
                title: "Resume a hook's schedule",
                description: "Lets a paused schedule go on with its next instant.",
                handler: resumeHook
            ),
            Endpoint(
                .post,
                Self.hookRoute + "/backfill",
                name: "backfillHook",
                scopes: try ScopeTemplate("hooks:trigger-hook:<hookGroupId>/<hookId>"),
                parameters: Self.parameters,
                input: "v1/backfill-hook-request.json",
                output: "v1/backfill-hook-response.json",
                category: "Schedules",
                stability: .experimental,
                title: "Make up for instants of the schedule",
                description: """
                    Fires the instants of the present schedule in a range of the past that made no task: those that were \
                    skipped, that failed, or that the schedule did not have yet. Each fires once, however often it is \
                    asked for.
                    """,
                handler: backfillHook
            ),
            Endpoint(
                .get,
                Self.hookRoute + "/ledger",
                name: "listLedger",
                scopes: try ScopeTemplate("hooks:list-last-fires:<hookGroupId>/<hookId>"),
                query: [
                    "from": Self.instant, "to": Self.instant, "limit": .limit, "continuationToken": .continuationToken,
                ],
                parameters: Self.parameters,
                output: "v1/list-ledger-response.json",
                category: "Hook Status",
                stability: .experimental,
                title: "List what became of a hook's events",
                description: """
                    Lists every event in a range that could have fired the hook, newest first: whether it made a task, \
                    was declined, failed or was skipped, why, and how long each phase took.
                    """,
                handler: listLedger
            ),
        ]
    }

    private static let instant = QueryRule(pattern: "an RFC 3339 date-time") { Timestamp($0) != nil }

    // MARK: - Pausing

    @Sendable func pauseHook(_ request: APIRequest) async throws -> APIResponse {
        guard try await schedules.pause(request.hookName, by: request.clientID ?? "", now: now()) else {
            throw APIError.noSuchHook
        }
        return try await status(request)
    }

    @Sendable func resumeHook(_ request: APIRequest) async throws -> APIResponse {
        guard try await schedules.resume(request.hookName, now: now()) else { throw APIError.noSuchHook }
        return try await status(request)
    }

    // MARK: - Backfill

    @Sendable func backfillHook(_ request: APIRequest) async throws -> APIResponse {
        let body = request.body
        guard let from = body["from"]?.string.flatMap({ Timestamp($0) }),
            let to = body["to"]?.string.flatMap({ Timestamp($0) }), from < to
        else { throw APIError(.inputError, "`from` must be a date-time before `to`") }
        let backfill = Backfill(
            schedules: schedules,
            fires: fires,
            ledger: LedgerStore(pool: fires.pool),
            programs: programs,
            now: now
        )
        do {
            let result = try await backfill.run(
                request.hookName,
                from: from,
                to: to,
                perSecond: body["perSecond"]?.int ?? 5,
                isRehearsal: body["dryRun"]?.bool ?? false
            )
            dispatcher.lookNow()
            return .json([
                "fires": .array(
                    result.accepted.map { ["due": JSONValue($0.instant.iso8601), "taskId": JSONValue($0.taskID)] }
                ),
                "settled": JSONValue(result.settled),
            ])
        } catch let refusal as Backfill.Refusal {
            switch refusal {
            case .noSuchHook: throw APIError.noSuchHook
            case .unusable(let problem):
                throw APIError(.inputError, "{{problem}}", details: ["problem": JSONValue(problem)])
            case .tooMany:
                throw APIError(
                    .inputError,
                    "The range has more than \(Backfill.limit) instants; ask for less at a time"
                )
            }
        }
    }

    // MARK: - Ledger

    @Sendable func listLedger(_ request: APIRequest) async throws -> APIResponse {
        let name = request.hookName
        guard try await store.hook(name) != nil else { throw APIError.noSuchHook }
        let page = request.page
        var place: LedgerStore.Place?
        if let due = try page.string(0), let id = try page.int(1) {
            guard let instant = Timestamp(due) else { throw Continuation.invalid }
            place = LedgerStore.Place(due: instant, id: id)
        }
        if place == nil { try await fires.settleEnds(of: name) }
        let rows = try await LedgerStore(pool: fires.pool).entries(
            of: name,
            from: request.query["from"].flatMap { Timestamp($0) } ?? Timestamp(milliseconds: 0),
            to: request.query["to"].flatMap { Timestamp($0) } ?? .farFuture,
            before: place,
            limit: page.fetch
        )
        return .json(
            page.reply(
                "entries",
                rows,
                columns: { [JSONValue($0.due.iso8601), JSONValue($0.id)] },
                json: \.json
            )
        )
    }
}
