// SPDX-License-Identifier: MPL-2.0

import JSON

/// What is known of one task of a group.
struct GroupMember: Sendable, Hashable {
    let taskID: String
    let state: String
    /// Why the last run ended, or never began.
    var reason: String?
    var name = ""
    /// The words by which `ignore_tasks` may mean it.
    var labels: [String] = []
    var dependencies: [String] = []
    /// Whether it runs however the tasks it depends on end.
    var requiresOnlyResolved = false

    /// Reads a task of a list, or the answer about one task.
    init?(_ json: JSONValue) {
        guard let status = json["status"], let id = status["taskId"]?.string, let state = status["state"]?.string else {
            return nil
        }
        taskID = id
        self.state = state
        let run = status["runs"]?.array?.last
        reason = run?["reasonResolved"]?.string
        if let task = json["task"] {
            name = task["metadata"]?["name"]?.string ?? ""
            labels = [name, task["tags"]?["label"]?.string, task["tags"]?["kind"]?.string].compactMap(\.self)
            dependencies = task["dependencies"]?.array?.compactMap(\.string) ?? []
            requiresOnlyResolved = task["requires"]?.string == "all-resolved"
        }
    }

    init(_ taskID: String, _ state: String, reason: String? = nil, name: String = "", dependencies: [String] = []) {
        self.taskID = taskID
        self.state = state
        self.reason = reason
        self.name = name
        self.dependencies = dependencies
        labels = [name]
    }

    /// How it ended, as people read it.
    var ending: String {
        guard let reason, reason != state else { return state }
        return "\(state), \(reason)"
    }

    var isResolvedBadly: Bool { state == "failed" || state == "exception" }
    var isOpen: Bool { state == "pending" || state == "running" }
    var wasCancelled: Bool { state == "exception" && reason == "canceled" }
}

/// What a group amounts to.
enum GroupVerdict: Sendable, Hashable {
    case running(String)
    case completed
    case failed(String)
    case cancelled
}

/// Decides what the tasks of a group amount to.
struct GroupRollUp: Sendable {
    private let definition: TaskclusterDefinition
    private let members: [GroupMember]
    private let isSealed: Bool

    /// Takes the tasks of a whole group; one that is listed twice counts as it was listed last.
    init(_ definition: TaskclusterDefinition, _ list: [GroupMember], isSealed: Bool) {
        self.definition = definition
        self.isSealed = isSealed
        var places: [String: Int] = [:]
        var members: [GroupMember] = []
        for member in list {
            if let place = places[member.taskID] {
                members[place] = member
            } else {
                places[member.taskID] = members.count
                members.append(member)
            }
        }
        self.members = members
    }

    /// What the task that makes the others amounts to; nil if it is done and the group decides.
    static func verdict(initiating task: GroupMember) -> GroupVerdict? {
        switch task.state {
        case "completed": nil
        case "failed", "exception":
            task.wasCancelled ? .cancelled : .failed("the task \(task.taskID) ended as \(task.ending)")
        default: .running("the task \(task.taskID) is \(task.state)")
        }
    }

    /// How many tasks are in which state.
    var counts: [String: Int] {
        members.reduce(into: [:]) { $0[$1.state, default: 0] += 1 }
    }

    /// The tasks that count as failures.
    var bad: [GroupMember] {
        members.filter { $0.isResolvedBadly && !definition.successes.contains($0.state) && !isIgnored($0) }
    }

    /// What all of them amount to.
    var verdict: GroupVerdict {
        guard !members.isEmpty else { return .running("the group has no tasks yet") }
        let bad = bad
        if definition.failsFast, !bad.isEmpty { return failure(bad) }
        let open = members.count { $0.isOpen }
        if open > 0 { return .running("\(open) of \(members.count) tasks go on") }
        let waiting = members.filter { $0.state == "unscheduled" }
        if !waiting.isEmpty {
            let blocked = blocked
            let free = waiting.count { !blocked.contains($0.taskID) }
            if free > 0 { return .running("\(free) of \(members.count) tasks wait to be scheduled") }
            if let first = waiting.first(where: { !isIgnored($0) }) {
                return .failed("blocked: \(first.name.isEmpty ? first.taskID : first.name) can never run")
            }
        }
        if !bad.isEmpty { return bad.allSatisfy(\.wasCancelled) ? .cancelled : failure(bad) }
        if definition.requiresSealed, !isSealed { return .running("the group is not sealed") }
        return .completed
    }

    private func failure(_ bad: [GroupMember]) -> GroupVerdict {
        let names = bad.prefix(3).map { $0.name.isEmpty ? $0.taskID : $0.name }.joined(separator: ", ")
        return .failed("\(bad.count) of \(members.count) tasks did not succeed: \(names)\(bad.count > 3 ? ", …" : "")")
    }

    /// The unscheduled tasks that wait for something that can never be completed.
    private var blocked: Set<String> {
        var dead = Set(members.filter(\.isResolvedBadly).map(\.taskID))
        var waiters: [String: [GroupMember]] = [:]
        for member in members where member.state == "unscheduled" && !member.requiresOnlyResolved {
            for dependency in member.dependencies { waiters[dependency, default: []].append(member) }
        }
        var blocked: Set<String> = []
        var queue = Array(dead)
        while let next = queue.popLast() {
            for waiter in waiters[next, default: []] where dead.insert(waiter.taskID).inserted {
                blocked.insert(waiter.taskID)
                queue.append(waiter.taskID)
            }
        }
        return blocked
    }

    private func isIgnored(_ member: GroupMember) -> Bool {
        definition.ignored.contains { pattern in member.labels.contains { Glob.matches(pattern, $0) } }
    }
}

/// Names with `*` for any text and `?` for any character.
enum Glob {
    /// Whether a pattern means a text.
    static func matches(_ pattern: String, _ text: String) -> Bool {
        let pattern = Array(pattern.unicodeScalars)
        let text = Array(text.unicodeScalars)
        var (p, t) = (0, 0)
        var star: (pattern: Int, text: Int)?
        while t < text.count {
            if p < pattern.count, pattern[p] == "*" {
                star = (p + 1, t)
                p += 1
            } else if p < pattern.count, pattern[p] == "?" || pattern[p] == text[t] {
                p += 1
                t += 1
            } else if let last = star {
                // The last star takes one more character.
                star = (last.pattern, last.text + 1)
                p = last.pattern
                t = last.text + 1
            } else {
                return false
            }
        }
        return pattern[p...].allSatisfy { $0 == "*" }
    }
}
