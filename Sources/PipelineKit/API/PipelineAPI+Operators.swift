// SPDX-License-Identifier: MPL-2.0

import APIServer
import JSON
import StepKit

/// What operators decide.
extension PipelineAPI {
    var operators: [Endpoint] {
        [
            endpoint(.post, "/<uid>/pause", "pause", verb: "pause", "Pause") { try await pause($0, $1, true) },
            endpoint(.post, "/<uid>/resume", "resume", verb: "pause", "Resume") { try await pause($0, $1, false) },
            endpoint(.post, "/<uid>/retry", "retry", verb: "retry", "Retry", retry),
            decision("retry", verb: "retry", "Retry a step", retryStep),
            decision("start", verb: "resolve", "Call for a step that waits for that", call),
            decision("skip", verb: "resolve", "Skip a step", skip),
            decision("resolve", verb: "resolve", "Say how a step ended", resolve),
            decision("cancel", verb: "cancel", "Cancel a step", cancelStep),
            decision("override-freeze", verb: "freeze/manage", "Start a step in spite of a freeze", overrideFreeze),
            endpoint(
                .put,
                "/<uid>/steps/<step>/parameters",
                "setParameters",
                verb: "resolve",
                "Replace the parameters of a step",
                setParameters
            ),
        ]
    }

    /// What is decided about one step.
    private func decision(
        _ action: String,
        verb: String,
        _ title: String,
        _ handler: @escaping StepEndpoints.Handler
    ) -> Endpoint {
        endpoint(.post, "/<uid>/steps/<step>/\(action)", "\(action)Step", verb: verb, title, handler)
    }

    private func answer(_ step: Step) async throws -> APIResponse {
        .json(.object(step.status(info: try await service.info(of: step))), headers: ["ETag": step.entityTag])
    }

    private func operate(
        _ request: APIRequest,
        _ actor: StepActor,
        reopens: Bool = false,
        _ body: (inout Evaluation, inout StepTransaction) async throws -> Void
    ) async throws -> APIResponse {
        let step = try await service.operate(
            request.parameter("uid"),
            actor: actor.name,
            match: request.match,
            key: try request.requestKey(service.store, actor),
            reopens: reopens,
            body
        )
        return try await answer(step)
    }

    private func pause(_ request: APIRequest, _ actor: StepActor, _ isPaused: Bool) async throws -> APIResponse {
        let step = try await service.setPaused(
            isPaused,
            request.parameter("uid"),
            actor: actor.name,
            match: request.match,
            key: try request.requestKey(service.store, actor)
        )
        return try await answer(step)
    }

    private func retry(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let body = try request.jsonObject()
        try body.allowOnly(["steps", "from_failed", "pause"])
        // Whoever wants to change something before it runs again.
        if let pause = body["pause"], pause.bool == nil { throw StepProblem.invalid("pause has to be true or false") }
        let pauses = body["pause"] == true
        var names: Set<String>?
        if let list = body["steps"] {
            guard let array = list.array, !array.isEmpty, array.allSatisfy({ $0.string != nil }) else {
                throw StepProblem.invalid("steps has to be a list of names")
            }
            names = Set(array.compactMap(\.string))
        }
        let chosen = names
        return try await operate(request, actor, reopens: true) { evaluation, change in
            let all = try evaluation.retry(chosen)
            change.record("retry", ["steps": JSONValue(all)])
            if pauses { try await service.pause(&evaluation, &change) }
        }
    }

    private func retryStep(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let step = request.parameter("step")
        return try await operate(request, actor, reopens: true) { evaluation, change in
            let all = try evaluation.retry([step])
            change.record("retry", ["steps": JSONValue(all)])
        }
    }

    /// Why an operator does something, which the audit has to say.
    static func reason(_ body: JSONObject) throws(StepProblem) -> String {
        guard let reason = body["reason"]?.string, !reason.isEmpty else {
            throw StepProblem.invalid("reason has to say why")
        }
        return String(reason.prefix(2000))
    }

    /// Decides about a step, for a reason that may be given.
    private func decide(
        _ kind: String,
        _ request: APIRequest,
        _ actor: StepActor,
        considering decision: StepDecision.Kind? = nil,
        _ body: (inout Evaluation, _ step: String, _ reason: String?) throws -> Void
    ) async throws -> APIResponse {
        let step = request.parameter("step")
        let said = try request.jsonObject()
        try said.allowOnly(["reason"])
        let reason = try said["reason"] == nil ? nil : Self.reason(said)
        return try await operate(request, actor) { evaluation, change in
            if let decision { try await consider(decision, step, reason, actor, &change) }
            try body(&evaluation, step, reason)
            change.record(kind, subject: step, reason.map { ["reason": .string($0)] } ?? [:])
        }
    }

    private func call(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        try await decide("call", request, actor, considering: .start) { evaluation, step, _ in
            try evaluation.call(for: step)
        }
    }

    private func skip(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        try await decide("skip", request, actor, considering: .skip) { try $0.skip($1, $2) }
    }

    private func resolve(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let step = request.parameter("step")
        let body = try request.jsonObject()
        try body.allowOnly(["status", "reason"])
        let reason = try Self.reason(body)
        let state: RunState
        switch body["status"]?.string {
        case "success": state = .completed
        case "failure": state = .failed
        default: throw StepProblem.invalid("status has to be success or failure")
        }
        return try await operate(request, actor, reopens: true) { evaluation, change in
            try await consider(.resolve, step, reason, actor, &change)
            try evaluation.resolve(step, state, reason)
            change.record("resolve", subject: step, ["state": .string(state.rawValue), "reason": .string(reason)])
        }
    }

    private func cancelStep(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        try await decide("cancel", request, actor) { evaluation, step, _ in try evaluation.cancel(step) }
    }

    private func setParameters(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let step = request.parameter("step")
        let body = try request.jsonObject()
        return try await operate(request, actor) { evaluation, change in
            try await consider(.parameters, step, nil, actor, &change)
            try DefinitionReader.check(body, of: step, in: evaluation.definition)
            try evaluation.setParameters(step, body)
            let digest = CanonicalJSON.digest(.object(body))
            change.record("parameters", subject: step, ["sha256": .string(Hexadecimal.encoded(digest))])
        }
    }

    private func overrideFreeze(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let step = request.parameter("step")
        let body = try request.jsonObject()
        try body.allowOnly(["reason"])
        let reason = try Self.reason(body)
        return try await operate(request, actor) { evaluation, change in
            let rows = try await change.connection.query(FreezeStore.query(at: change.now))
            evaluation.freezes = try service.freezes.freezes(rows)
            try evaluation.overrideFreeze(step, scopes: actor.scopes)
            change.record("override_freeze", subject: step, ["reason": .string(reason)])
        }
    }
}
