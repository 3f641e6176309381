// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepKit

/// What a pipeline shall do: steps of other services, and which has to wait for which.
struct PipelineDefinition: Sendable {
    /// What happens to the rest when a step fails.
    enum FailurePolicy: String, Sendable {
        /// What does not depend on it goes on.
        case drain
        /// Everything is cancelled.
        case abort
        /// As ``drain``.
        case `continue`
    }

    /// What happens when another pipeline of the same key goes on.
    enum ConcurrencyPolicy: String, Sendable {
        case queue
        case reject
        case cancelOldest = "cancel_oldest"
    }

    var uid: String
    var description = ""
    var labels: JSONObject = [:]
    /// What the parameters of steps may refer to.
    var parameters: JSONObject = [:]
    var steps: [StepSpecification] = []
    var onFailure = FailurePolicy.drain
    var concurrencyKey: String?
    var concurrencyPolicy = ConcurrencyPolicy.queue
    var namespacesSteps = false
    var deadline: Timestamp?
    /// Whether its steps are only played: no service is told of them.
    var isDryRun = false
    /// Who is told of what.
    var notify: [NotifyRule] = []
    /// The template it was made from, with the version of that.
    var template: (name: String, version: String)?

    /// The definition in its one stored form.
    var json: JSONValue {
        var json: JSONObject = ["uid": .string(uid)]
        json["description"] = .string(description)
        json["labels"] = .object(labels)
        var parameters = parameters
        parameters["steps"] = .array(steps.map { .object($0.json) })
        json["parameters"] = .object(parameters)
        json["on_failure"] = .string(onFailure.rawValue)
        if let concurrencyKey {
            json["concurrency_key"] = .string(concurrencyKey)
            json["concurrency_policy"] = .string(concurrencyPolicy.rawValue)
        }
        if namespacesSteps { json["namespace_steps"] = true }
        json["deadline"] = deadline.map { .string($0.iso8601) }
        if isDryRun { json["dry_run"] = true }
        if !notify.isEmpty { json["notify"] = .array(notify.map(\.json)) }
        if let template {
            json["template"] = ["name": .string(template.name), "version": .string(template.version)]
        }
        return .object(json)
    }

    /// The name of a step at its service.
    ///
    /// A pipeline whose name was used before must not be given the steps of the earlier one, so its steps have other names.
    func remoteUID(of step: StepSpecification, attempt: Int, incarnation: Int = 1) -> String {
        var name = step.remoteUID ?? (namespacesSteps ? "\(uid).\(step.uid)" : step.uid)
        if incarnation > 1, step.remoteUID == nil { name += ".i\(incarnation)" }
        return attempt > 1 ? "\(name).r\(attempt)" : name
    }
}

/// One step of a pipeline as it was asked for.
struct StepSpecification: Sendable, Hashable {
    /// How many of the required steps have to be done.
    enum Mode: String, Sendable {
        case all
        case any
    }

    /// How the required steps have to end.
    enum Condition: String, Sendable {
        case success
        case always
        case failure
    }

    /// How often a step is tried again.
    struct Retries: Sendable, Hashable {
        var limit = 0
        var backoff = 30
        var longestBackoff = 600
        var on: Set<String> = ["exception"]
    }

    var uid: String
    var apiURL: String
    var description = ""
    var parametersSchema: JSONValue = ""
    var parameters: JSONObject = [:]
    var requires: [String] = []
    var mode = Mode.all
    var when = Condition.success
    var timeout: Int?
    var retries = Retries()
    var notBefore: Timestamp?
    var deadline: Timestamp?
    var locks: [String] = []
    var respectsFreeze = true
    var isOptional = false
    var failsUnreachable = false
    var remoteUID: String?
    var detaches = false
    /// Whether it waits for somebody who calls for it.
    var isManual = false

    var json: JSONObject {
        var json: JSONObject = [
            "uid": .string(uid), "api_url": .string(apiURL), "description": .string(description),
            "parameters_schema": parametersSchema, "parameters": .object(parameters), "requires": JSONValue(requires),
        ]
        if mode != .all { json["requires_mode"] = .string(mode.rawValue) }
        if when != .success { json["when"] = .string(when.rawValue) }
        json["timeout_s"] = timeout.map { JSONValue($0) }
        if retries != Retries() {
            json["retries"] = [
                "limit": JSONValue(retries.limit), "backoff_s": JSONValue(retries.backoff),
                "max_backoff_s": JSONValue(retries.longestBackoff), "on": JSONValue(retries.on.sorted()),
            ]
        }
        json["not_before"] = notBefore.map { .string($0.iso8601) }
        json["deadline"] = deadline.map { .string($0.iso8601) }
        if !locks.isEmpty { json["locks"] = JSONValue(locks) }
        if !respectsFreeze { json["respect_freeze"] = false }
        if isOptional { json["optional"] = true }
        if failsUnreachable { json["on_unreachable"] = "fail" }
        json["remote_uid"] = remoteUID.map { .string($0) }
        if detaches { json["cancel"] = "detach" }
        if isManual { json["manual"] = true }
        return json
    }
}
