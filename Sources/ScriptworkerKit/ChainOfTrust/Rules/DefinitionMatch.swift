// SPDX-License-Identifier: MPL-2.0

import JSON
import JSONE
import Schedules

/// Rebuilds the definition of a decision or action task from its tree, and compares.
enum DefinitionMatch {
    /// Renders an in-tree template for a parent task.
    static func rebuilt(
        _ template: JSONValue,
        context: JSONObject,
        parent: ChainTask,
        decision: ChainTask
    ) throws(ChainProblem) -> [JSONValue] {
        let (own, decisionID) = (parent.taskID, decision.taskID)
        let slugid: JSONETemplate.Function = { arguments in
            .string(arguments.first?.string == "decision" ? decisionID : own)
        }
        let result: JSONValue
        do throws(JSONEError) {
            result = try JSONETemplate(template).render(
                context,
                now: parent.created ?? Timestamp(milliseconds: 0),
                functions: ["as_slugid": slugid]
            )
        } catch {
            throw ChainProblem("\(parent.label): the in-tree template cannot be rendered: \(error)")
        }
        guard let tasks = result["tasks"]?.array else {
            throw ChainProblem("\(parent.label): the in-tree template makes no list of tasks")
        }
        return tasks
    }

    /// Requires that one of the rebuilt definitions is the task's.
    static func check(_ rebuilt: [JSONValue], against parent: ChainTask) throws(ChainProblem) {
        let found = normalized(parent.definition)
        var differences: [String] = []
        for definition in rebuilt {
            var definition = definition
            if var object = definition.object {
                object.removeValue(forKey: "taskId")
                definition = .object(object)
            }
            let expected = normalized(definition)
            if expected == found { return }
            differences.append(JSONDifference.text(expected: expected, found: found))
        }
        throw ChainProblem(
            ["\(parent.label): the task is none of those that its tree defines"]
                + differences.map { "  differences: \($0)" },
            code: .malformedPayload
        )
    }

    /// Checks an action's task group and takes over the one at hand, which legitimately is one of two.
    static func settleActionGroup(
        _ rebuilt: [JSONValue],
        parent: ChainTask,
        decision: ChainTask
    ) throws(ChainProblem) -> [JSONValue] {
        let key = "ACTION_TASK_GROUP_ID"
        guard let found = parent.environment(key), let first = rebuilt.first,
            let expected = first["payload"]?["env"]?[key]?.string
        else { throw ChainProblem("\(parent.label): the action has no \(key)") }
        for id in [expected, found] where id != parent.taskID && id != decision.taskID {
            throw ChainProblem("\(parent.label): \(key) is \(id), neither the action nor its decision task")
        }
        var rebuilt = rebuilt
        rebuilt[0]["payload"]?["env"]?[key] = .string(found)
        return rebuilt
    }

    /// A definition without what rendering and the queue write differently.
    static func normalized(_ definition: JSONValue) -> JSONValue {
        guard var object = pruned(definition).object else { return definition }
        if object["projectId"] == nil { object["projectId"] = "none" }
        if object["taskQueueId"] == nil, let provisioner = object["provisionerId"]?.string,
            let workerType = object["workerType"]?.string
        {
            object["taskQueueId"] = .string("\(provisioner)/\(workerType)")
        }
        object.removeValue(forKey: "provisionerId")
        object.removeValue(forKey: "workerType")
        return .object(object)
    }

    /// Drops members and elements that say nothing, in one pass: what becomes empty by that stays.
    static func pruned(_ value: JSONValue) -> JSONValue {
        switch value {
        case .object(let object):
            .object(JSONObject(object.filter { !isNothing($0.value) }.map { (key: $0.key, value: pruned($0.value)) }))
        case .array(let list): .array(list.filter { !isNothing($0) }.map(pruned))
        default: value
        }
    }

    private static func isNothing(_ value: JSONValue) -> Bool {
        switch value {
        case .null: true
        case .string(let text): text == "null"
        case .array(let list): list.isEmpty
        case .object(let object): object.isEmpty
        default: false
        }
    }

    // MARK: - Actions

    /// The announcement of an action in its decision task's `actions.json`.
    static func action(_ actions: JSONValue, of parent: ChainTask) throws(ChainProblem) -> JSONValue {
        let callback = parent.environment("ACTION_CALLBACK") ?? ""
        for action in actions["actions"]?.array ?? [] {
            guard action["hookPayload"]?["decision"]?["action"]?["cb_name"]?.string == callback else { continue }
            guard action["kind"]?.string == "hook" else {
                throw ChainProblem(
                    "\(parent.label): the action \(callback) is of the kind \(action["kind"]?.text() ?? "?")"
                )
            }
            return action
        }
        throw ChainProblem("\(parent.label): its decision task announces no action with the callback \(callback)")
    }

    private static func permission(_ action: JSONValue) -> JSONValue {
        if let given = action["extra"]?["actionPerm"] ?? action["actionPerm"], !given.isNull { return given }
        let hook = action["hookId"]?.string ?? "generic/"
        if hook.contains("generic/") { return "generic" }
        return action["hookPayload"]?["decision"]?["action"]?["cb_name"] ?? nil
    }

    /// The template as the action's hook has it: the in-tree one with its variables taken from the trigger's payload.
    static func hookTemplate(_ template: JSONValue, _ action: JSONValue, tasksFor: String) -> JSONValue {
        let permission = permission(action)
        let scope = "assume:repo:${payload.decision.repository.url[8:]}:\(tasksFor):\(permission.string ?? "")"
        let variables: JSONValue = [
            "tasks_for": .string(tasksFor),
            "action": [
                "name": "${payload.decision.action.name}",
                "title": "${payload.decision.action.title}",
                "description": "${payload.decision.action.description}",
                "taskGroupId": "${payload.decision.action.taskGroupId}",
                "symbol": "${payload.decision.action.symbol}",
                "repo_scope": .string(scope),
                "action_perm": permission,
                "cb_name": "${payload.decision.action.cb_name}",
            ],
            "push": ["$eval": "payload.decision.push"],
            "repository": ["$eval": "payload.decision.repository"],
            "input": ["$eval": "payload.user.input"],
            "parameters": ["$eval": "payload.decision['parameters']"],
            "taskId": ["$eval": "payload.user.taskId"],
            "taskGroupId": ["$eval": "payload.user.taskGroupId"],
            "ownTaskId": ["$eval": "taskId"],
        ]
        return ["$let": variables, "in": template]
    }

    /// The context of the action's hook, worked back from the one that the in-tree template expects.
    static func hookContext(
        _ action: JSONValue,
        _ inner: JSONObject,
        parent: ChainTask
    ) throws(ChainProblem) -> JSONObject {
        let variables: JSONObject = [
            "input": inner["input"] ?? nil, "parameters": inner["parameters"] ?? nil,
            "taskGroupId": .string(parent.decisionID), "taskId": inner["taskId"] ?? nil,
        ]
        let payload: JSONValue
        do throws(JSONEError) {
            let now = parent.created ?? Timestamp(milliseconds: 0)
            payload = try JSONE.render(action["hookPayload"] ?? nil, context: variables, now: now)
        } catch {
            throw ChainProblem("\(parent.label): the action's hookPayload cannot be rendered: \(error)")
        }
        return [
            "payload": payload, "taskId": .string(parent.taskID), "now": inner["now"] ?? nil,
            "clientId": inner["clientId"] ?? nil,
        ]
    }
}
