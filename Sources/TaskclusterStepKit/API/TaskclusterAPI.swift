// SPDX-License-Identifier: MPL-2.0

public import APIServer
import JSON
public import StepKit
import Taskcluster

/// The API of Taskcluster steps: the step contract, and what operators decide by hand.
public struct TaskclusterAPI: Sendable {
    private let steps: StepAPI<TaskclusterService>
    private let service: TaskclusterService

    /// Puts the API in front of a service.
    public init(service: TaskclusterService, tokens: TokenVerifier?, isPublic: Bool) {
        self.service = service
        steps = StepAPI(
            service: service,
            store: service.store,
            gate: StepGate(service: "shipit_taskcluster", tokens: tokens, isPublic: isPublic)
        )
    }

    /// The whole API.
    public func api(schemas: SchemaStore) -> API {
        steps.api(
            schemas: schemas,
            adding: ["", "/steps"].map { base in
                steps.endpoints.endpoint(
                    .post,
                    "\(base)/<uid>/resolve",
                    name: base.isEmpty ? "resolve" : "resolveAlias",
                    verb: "resolve",
                    title: "Decide about a step",
                    handler: resolve
                )
            }
        )
    }

    private func resolve(_ request: APIRequest, _ actor: StepActor) async throws -> APIResponse {
        let body = try request.jsonObject()
        try body.allowOnly(["status", "taskId", "reason"])
        guard let reason = body["reason"]?.string, !reason.isEmpty else {
            throw StepProblem.invalid("reason has to say why")
        }
        let decision: TaskclusterService.Decision
        switch (body["status"]?.string, body["taskId"]?.string) {
        case ("success", nil): decision = .success
        case ("failure", nil): decision = .failure
        case (nil, .some(let id)) where Slugid.isValid(id): decision = .task(id)
        default: throw StepProblem.invalid("Send status, success or failure, or the taskId that the step made")
        }
        let step = try await service.resolve(
            request.parameter("uid"),
            decision,
            reason: String(reason.prefix(2000)),
            by: actor.name,
            match: request.match,
            key: try request.requestKey(service.store, actor)
        )
        return .json(.object(step.status), headers: ["ETag": step.entityTag])
    }
}

extension TaskclusterService {
    /// What somebody decides about a step.
    enum Decision: Sendable {
        case success
        case failure
        /// The step has made this task, which is followed from now on.
        case task(String)
    }

    /// Carries out what somebody has decided; a step that has succeeded stays as it is.
    func resolve(
        _ uid: String,
        _ decision: Decision,
        reason: String,
        by actor: String,
        match: EntityTags? = nil,
        key: StepStore.RequestKey? = nil
    ) async throws -> Step {
        try await store.change(uid, actor: actor, match: match, key: key) { change in
            guard change.step.state != .completed, change.step.state != .cancelled else {
                throw StepProblem.conflict("step_closed", "The step is \(change.step.state.rawValue)")
            }
            let word =
                switch decision {
                case .success: "success"
                case .failure: "failure"
                case .task(let id): id
                }
            change.record("resolved", ["decision": .string(word), "reason": .string(reason)])
            if change.step.state.isTerminal { change.reopen(to: .running, message: "") }
            change.step.nextCheck = nil
            switch decision {
            case .success: change.move(to: .completed, message: "resolved by \(actor): \(reason)")
            case .failure: change.move(to: .failed, message: "resolved by \(actor): \(reason)")
            case .task(let id):
                guard var run = try await runs.run(change.step.id, on: change.connection), run.mode != "track" else {
                    throw StepProblem.invalid("The step makes no tasks")
                }
                run.taskID = id
                run.groupID = nil
                run.hasBegun = true
                try await runs.save(run, on: change.connection)
                describe(run, &change)
                change.step.nextCheck = change.now
            }
        }.step
    }
}
