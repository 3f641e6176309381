// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPClient
import JSON
import JSONE
import JSONSchema
import Schedules
import StepKit
import Taskcluster
import TaskclusterClient
import YAMLReader

extension TaskclusterService {
    /// A trigger of a hook in the form in which it is stored before it is sent.
    private struct Trigger {
        let group: String
        let hook: String
        let payload: JSONValue
        /// Whether the payload names the id that the task shall have.
        let namesTask: Bool

        init(group: String, hook: String, payload: JSONValue, namesTask: Bool) {
            self.group = group
            self.hook = hook
            self.payload = payload
            self.namesTask = namesTask
        }

        init?(_ json: JSONValue?) {
            guard let group = json?["hookGroupId"]?.string, let hook = json?["hookId"]?.string,
                let payload = json?["payload"]
            else { return nil }
            self.init(group: group, hook: hook, payload: payload, namesTask: json?["names_task"] == true)
        }

        var json: JSONValue {
            [
                "hookGroupId": .string(group), "hookId": .string(hook), "payload": payload,
                "names_task": JSONValue(namesTask),
            ]
        }
    }

    /// What became of a trigger.
    private enum Firing {
        case fired(task: String)
        case declined
        case refused(String)
        /// It never reached the service, or the service did not let it in.
        case notSent(TaskclusterError)
        /// It may have fired, or not.
        case unknown(TaskclusterError)
    }

    /// Begins the work of a step, or goes on with a beginning that was interrupted.
    func start(_ look: Look) async throws {
        if case .task = look.definition.work { return try await createTask(look) }
        if look.run.intended != nil { return try await recover(look) }
        guard let trigger = try await plan(look) else { return }
        // From here on the trigger counts as sent, whatever happens to this process.
        let intended = try await note(look) { change, run in
            run.intent = trigger.json
            run.intended = change.now
            change.record(
                "triggering",
                ["hook": .string("\(trigger.group)/\(trigger.hook)"), "taskId": .string(run.taskID ?? "")]
            )
        }
        guard let intended, intended.run.intended != nil else { return }
        try await conclude(await fire(trigger), trigger, intended, isFirst: true)
    }

    // MARK: - Tasks

    /// Creates the task under the id that was chosen for it; the same task again is the same task.
    private func createTask(_ look: Look) async throws {
        guard let id = look.run.taskID, let task = look.run.intent else { return }
        do throws(TaskclusterError) {
            _ = try await client.queue.createTask(id, task)
        } catch {
            guard Self.isFinal(error) else { throw error }
            return try await settle(look) { change, _ in
                change.move(to: .exception, message: "the task was refused: \(Self.excerpt(error))")
            }
        }
        try await begun(look, task: id)
    }

    /// The task that makes the others exists; it is followed from here on.
    private func begun(_ look: Look, task id: String) async throws {
        // Stored whatever the step has come to in the meantime: who cancels it has to know.
        let begun = try await note(look) { change, run in
            run.taskID = id
            // The group of a triggered task is the one that the queue tells.
            if run.mode != "task" { run.groupID = nil }
            run.hasBegun = true
            run.wasSeen = true
            change.record("begun", ["taskId": .string(id)])
        }
        guard let begun else { return }
        try await settle(begun) { change, run in
            change.step.info.removeValue(forKey: "stale_since")
            describe(run, &change)
            change.move(to: .running, message: "the task \(id) is there")
            change.step.nextCheck = change.now
        }
    }

    // MARK: - Hooks

    /// What is to be triggered; nil if the step has ended because that cannot be found out.
    private func plan(_ look: Look) async throws -> Trigger? {
        let wanted: (group: String, hook: String, payload: JSONValue)
        switch look.definition.work {
        case .hook(let group, let hook, let payload): wanted = (group, hook, payload)
        case .action(let group, let name, let input):
            do {
                wanted = try await action(name, of: group, input: input, look.step)
            } catch let problem as ActionProblem {
                try await give(up: look, problem.description)
                return nil
            }
        case .track, .task: return nil
        }
        let hook: JSONValue
        do throws(TaskclusterError) {
            hook = try await client.hooks.hook(wanted.group, wanted.hook)
        } catch {
            guard Self.isFinal(error) else { throw error }
            try await give(up: look, "the hook \(wanted.group)/\(wanted.hook): \(Self.excerpt(error))")
            return nil
        }
        // Names for what is triggered go with the payload where the hook's schema lets them.
        let names: JSONObject = ["taskId": .string(look.run.taskID ?? ""), "shipit_nonce": .string(look.run.nonce)]
        let schema = try? JSONSchema(hook["triggerSchema"] ?? [:], unknownKeywords: .ignore)
        for chosen in [["taskId", "shipit_nonce"], ["taskId"], ["shipit_nonce"]] {
            var payload = wanted.payload
            guard let schema, chosen.allSatisfy({ payload[$0] == nil }) else { continue }
            for name in chosen { payload[name] = names[name] }
            if schema.validate(payload).isEmpty {
                return Trigger(
                    group: wanted.group,
                    hook: wanted.hook,
                    payload: payload,
                    namesTask: chosen.contains("taskId")
                )
            }
        }
        return Trigger(group: wanted.group, hook: wanted.hook, payload: wanted.payload, namesTask: false)
    }

    private func give(up look: Look, _ message: String) async throws {
        try await settle(look) { change, _ in change.move(to: .exception, message: String(message.prefix(2000))) }
    }

    /// One request to trigger a hook: nothing below repeats it.
    func triggerOnce(
        _ group: String,
        _ hook: String,
        _ payload: JSONValue
    ) async throws(TaskclusterError) -> JSONValue {
        try await client.call(
            "hooks",
            "POST",
            ["hooks", group, hook, "trigger"],
            body: payload,
            retry: RetryPolicy(attempts: 1, base: .zero, maximum: .zero)
        )
    }

    /// Triggers once, and says what that has come to.
    private func fire(_ trigger: Trigger) async -> Firing {
        let answer: JSONValue
        do throws(TaskclusterError) {
            answer = try await triggerOnce(trigger.group, trigger.hook, trigger.payload)
        } catch {
            switch error.status {
            case nil where ["connect", "invalidURL", "tls"].contains(error.code): return .notSent(error)
            case 401, 403, 429: return .notSent(error)
            case 400 where !trigger.namesTask, 404, 413: return .refused(Self.excerpt(error))
            default: return .unknown(error)
            }
        }
        guard let id = answer["taskId"]?.string ?? answer["status"]?["taskId"]?.string else { return .declined }
        return .fired(task: id)
    }

    private func conclude(
        _ firing: Firing,
        _ trigger: Trigger,
        _ look: Look,
        isFirst: Bool
    ) async throws {
        switch firing {
        case .fired(let id): try await begun(look, task: id)
        case .declined: try await give(up: look, "the hook \(trigger.group)/\(trigger.hook) declined")
        case .refused(let text): try await give(up: look, "the trigger was refused: \(text)")
        case .notSent(let error):
            // Nothing has happened, so the next look begins anew, unless an earlier attempt may have fired.
            try await wait(look, because: error) { run in if isFirst { run.intended = nil } }
        case .unknown(let error):
            if error.status == 400 {
                // Refused, or taken because an earlier attempt under this id has fired.
                guard let id = look.run.taskID, try await task(id) != nil else {
                    return try await give(up: look, "the trigger was refused: \(Self.excerpt(error))")
                }
                return try await begun(look, task: id)
            }
            try await doubt(look, "the hook gave no answer (\(Self.excerpt(error)))")
        }
    }

    private func doubt(_ look: Look, _ why: String) async throws {
        try await settle(look) { change, _ in
            change.move(to: .starting, message: "asking whether the hook has fired: \(why)")
            change.step.nextCheck = change.now + min(pace.eager, pace.doubt / 4)
        }
    }

    /// Finds out what became of a trigger whose answer nobody has heard.
    private func recover(_ look: Look) async throws {
        guard let trigger = Trigger(look.run.intent), let id = look.run.taskID, let intended = look.run.intended else {
            return try await give(up: look, "the stored trigger cannot be read")
        }
        if trigger.namesTask, try await task(id) != nil { return try await begun(look, task: id) }
        // Where tasks get the id they are given, the same trigger again is the same task.
        if trigger.namesTask, hooksNameTasks {
            return try await conclude(await fire(trigger), trigger, look, isFirst: false)
        }
        let fires = try await fires(of: trigger, since: intended - .seconds(60))
        if let own = try await recognised(fires, look.run) { return try await begun(look, task: own) }
        guard store.now() >= intended + pace.doubt else { return try await doubt(look, "it may still come") }
        try await settle(look) { change, _ in
            change.record("ambiguous_trigger", ["fires": JSONValue(fires)])
            change.move(to: .exception, message: "ambiguous trigger: the hook may have fired, or not; resolve by hand")
        }
    }

    /// The tasks of the hook's fires since a moment.
    private func fires(of trigger: Trigger, since moment: Timestamp) async throws -> [String] {
        let list: JSONValue
        do throws(TaskclusterError) {
            list = try await client.hooks.listLastFires(trigger.group, trigger.hook)
        } catch {
            guard error.status == 404 else { throw error }
            return []
        }
        return list["lastFires"]?.array?.compactMap { fire in
            guard let time = fire["taskCreateTime"]?.string.flatMap({ Timestamp($0) }), time >= moment else {
                return nil
            }
            return fire["taskId"]?.string
        } ?? []
    }

    /// The one of some tasks that carries the id or the word of this step.
    private func recognised(_ fires: [String], _ run: TaskRun) async throws -> String? {
        if let id = run.taskID, fires.contains(id), try await task(id) != nil { return id }
        for fire in fires.prefix(20) {
            let task: JSONValue
            do throws(TaskclusterError) {
                task = try await client.queue.task(fire)
            } catch {
                guard error.status == 404 else { throw error }
                continue
            }
            if task.text().contains(run.nonce) { return fire }
        }
        return nil
    }

    /// The task of an interrupted beginning, if there is one by now.
    func discovered(_ run: TaskRun) async throws -> String? {
        if let id = run.taskID, try await task(id) != nil { return id }
        guard let trigger = Trigger(run.intent), let intended = run.intended else { return nil }
        return try await recognised(try await fires(of: trigger, since: intended - .seconds(60)), run)
    }

    // MARK: - Actions

    /// What is wrong with an action, so that it can never be triggered.
    struct ActionProblem: Error, CustomStringConvertible {
        let description: String
    }

    /// The hook and the payload of an action that the decision task of a group offers.
    func action(
        _ name: String,
        of group: String,
        input: JSONValue,
        _ step: Step
    ) async throws -> (group: String, hook: String, payload: JSONValue) {
        let bytes = try await artifact("public/actions.json", of: group)
        let list: JSONValue
        do {
            list = try JSONValue(parsing: bytes)
        } catch {
            throw ActionProblem(description: "the actions of the group \(group): \(error.message)")
        }
        let candidates = list["actions"]?.array?.filter { $0["name"]?.string == name } ?? []
        // An action may be offered for tasks and for the whole group; this is about the group.
        guard let action = candidates.first(where: { $0["context"]?.array?.isEmpty ?? true }) ?? candidates.first else {
            throw ActionProblem(description: "the group \(group) offers no action \(name)")
        }
        guard action["kind"]?.string == "hook", let hookGroup = action["hookGroupId"]?.string,
            let hook = action["hookId"]?.string, let template = action["hookPayload"]
        else { throw ActionProblem(description: "the action \(name) is not carried out by a hook") }
        let text = String(decoding: try await artifact("public/parameters.yml", of: group), as: UTF8.self)
        var context: JSONObject = list["variables"]?.object ?? [:]
        context["input"] = input
        context["taskId"] = .null
        context["task"] = .null
        context["taskGroupId"] = .string(group)
        context["clientId"] = .string(store.announcement.actor)
        do {
            context["parameters"] = try YAML.value(of: text)
            let payload = try JSONE.render(template, context: context, now: step.created)
            return (hookGroup, hook, payload)
        } catch let error as YAML.Problem {
            throw ActionProblem(description: "the parameters of the group \(group): \(error)")
        } catch let error as JSONEError {
            throw ActionProblem(description: "the payload of the action \(name): \(error)")
        }
    }

    /// An artifact of the decision task of a group.
    private func artifact(_ name: String, of group: String) async throws -> [UInt8] {
        let url = await client.queue.artifactURL(group, name: name)
        var request = HTTPRequest(url: url, headers: ["Accept": "*/*"], timeout: .seconds(60))
        request.redirects = 3
        request.acceptCompressed = true
        request.sink = .memory(limit: 32 << 20)
        let response: HTTPResponse
        do throws(HTTPClientError) {
            response = try await client.transport.send(request)
        } catch {
            guard error.isRetriable else { throw ActionProblem(description: "\(name) of \(group): \(error)") }
            throw TaskclusterError(
                status: nil,
                code: error.code.name,
                message: error.message,
                method: "GET",
                url: url
            )
        }
        switch response.status {
        case 200: return response.body
        case 404, 410: throw ActionProblem(description: "the group \(group) has no \(name)")
        default:
            throw TaskclusterError(
                status: response.status,
                code: "ArtifactUnavailable",
                message: "\(name) cannot be had",
                method: "GET",
                url: url
            )
        }
    }
}
