// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import StepKit
import TaskclusterClient

extension TaskclusterService {
    /// A group as the queue tells it, all pages of it.
    struct Group: Sendable {
        var members: [GroupMember] = []
        var isSealed = false
        var expires: String?
    }

    /// Lists a group; nil if the queue does not know it.
    private func group(_ id: String) async throws(TaskclusterError) -> Group? {
        var group = Group()
        var token: String?
        repeat {
            let page: JSONValue
            do throws(TaskclusterError) {
                page = try await client.queue.listTaskGroup(id, continuation: token, limit: 1000)
            } catch {
                guard error.status == 404 else { throw error }
                return nil
            }
            group.members += page["tasks"]?.array?.compactMap { GroupMember($0) } ?? []
            group.isSealed = page["sealed"]?.string != nil
            group.expires = page["expires"]?.string
            token = page["continuationToken"]?.string.flatMap { $0.isEmpty ? nil : $0 }
        } while token != nil
        return group
    }

    /// A task as the queue tells it; nil if there is none of that name.
    func task(_ id: String) async throws(TaskclusterError) -> (member: GroupMember, group: String)? {
        let status: JSONValue
        do throws(TaskclusterError) {
            status = try await client.queue.status(id)
        } catch {
            guard error.status == 404 else { throw error }
            return nil
        }
        guard let member = GroupMember(status), let group = status["status"]?["taskGroupId"]?.string else {
            throw TaskclusterError(
                status: nil,
                code: "InvalidResponse",
                message: "the status of a task makes no sense",
                method: "GET",
                url: id
            )
        }
        return (member, group)
    }

    /// Looks at the task that makes the others, and at the group when that is done.
    func follow(_ look: Look) async throws {
        let run = look.run
        if let group = run.groupID { await bus?.follow(group: group, task: run.taskID) }
        if let id = run.taskID {
            guard let (member, group) = try await task(id) else { return try await missing(look) }
            if run.groupID == nil {
                // Asked again once the bus is listened to, so that no end falls in between.
                guard let next = try await note(look, { _, run in run.groupID = group }) else { return }
                return try await follow(next)
            }
            if let verdict = GroupRollUp.verdict(initiating: member) {
                return try await settle(look) { change, run in
                    run.wasSeen = true
                    seen(&change, &run)
                    change.step.info["counts"] = [member.state: 1]
                    apply(verdict, &change)
                    if !change.step.state.isTerminal { change.step.nextCheck = change.now + eagerness(change) }
                }
            }
        }
        guard let id = run.groupID, let group = try await group(id) else { return try await missing(look) }
        let rollUp = GroupRollUp(look.definition, group.members, isSealed: group.isSealed)
        try await settle(look) { change, run in
            run.listed = change.now
            seen(&change, &run)
            if group.members.isEmpty {
                if isTooLate(look, change.now) {
                    change.move(to: .exception, message: "the group \(id) has got no tasks in time")
                    return
                }
            } else {
                run.wasSeen = true
            }
            tell(group, rollUp, &change)
            apply(rollUp.verdict, &change)
            if change.step.state == .failed, look.definition.reopenWindow > 0 {
                change.step.nextCheck = change.now + pace.patient.lowerBound
            } else if !change.step.state.isTerminal {
                change.step.nextCheck = change.now + patience(change)
            }
        }
    }

    /// What the queue says has been had again.
    private func seen(_ change: inout StepTransaction, _ run: inout TaskRun) {
        if change.step.info["stale_since"] != nil {
            change.step.info.removeValue(forKey: "stale_since")
            change.record("reachable")
        }
        describe(run, &change)
    }

    private func tell(_ group: Group, _ rollUp: GroupRollUp, _ change: inout StepTransaction) {
        let counts = rollUp.counts.sorted { $0.key < $1.key }
        change.step.info["counts"] = .object(JSONObject(counts.map { (key: $0.key, value: JSONValue($0.value)) }))
        change.step.info["failed"] = .array(
            rollUp.bad.prefix(50).map { member in
                [
                    "taskId": .string(member.taskID), "name": .string(member.name), "state": .string(member.state),
                    "reason": member.reason.map { .string($0) } ?? .null,
                ]
            }
        )
        change.step.info["sealed"] = JSONValue(group.isSealed)
        change.step.info["expires"] = group.expires.map { .string($0) } ?? .null
    }

    private func apply(_ verdict: GroupVerdict, _ change: inout StepTransaction) {
        switch verdict {
        case .running(let message): change.move(to: .running, message: message)
        case .completed: change.move(to: .completed, message: "all tasks are completed")
        case .cancelled: change.move(to: .cancelled, message: "cancelled at Taskcluster")
        case .failed(let message): change.move(to: .failed, message: message)
        }
    }

    /// The queue does not know the group: it may still appear, or it is gone.
    private func missing(_ look: Look) async throws {
        try await settle(look) { change, run in
            seen(&change, &run)
            let what = run.groupID.map { "the group \($0)" } ?? "the task \(run.taskID ?? "")"
            if run.wasSeen {
                change.move(to: .exception, message: "expired: the queue no longer knows \(what)")
            } else if isTooLate(look, change.now) {
                change.move(to: .exception, message: "\(what) has not appeared in time")
            } else {
                change.move(to: change.step.state, message: "\(what) is not there yet")
                change.step.nextCheck = change.now + eagerness(change)
            }
        }
    }

    private func isTooLate(_ look: Look, _ now: Timestamp) -> Bool {
        now >= (look.run.intended ?? look.step.created) + .seconds(look.definition.appearTimeout)
    }

    /// A failure may be taken back for a while, when somebody runs the tasks again.
    func reconsider(_ look: Look) async throws {
        let end = (look.step.finished ?? look.step.updated) + .seconds(look.definition.reopenWindow)
        guard store.now() < end, let id = look.run.groupID, let group = try await group(id) else {
            return try await settle(look) { _, _ in }
        }
        let rollUp = GroupRollUp(look.definition, group.members, isSealed: group.isSealed)
        try await settle(look) { change, run in
            run.listed = change.now
            guard change.step.state == .failed else { return }
            switch rollUp.verdict {
            case .running(let message):
                change.reopen(to: .running, message: message)
                tell(group, rollUp, &change)
                change.step.nextCheck = change.now + patience(change)
            case .completed:
                change.reopen(to: .running, message: "")
                tell(group, rollUp, &change)
                apply(.completed, &change)
            case .failed, .cancelled:
                change.step.nextCheck = min(end, change.now + pace.patient.lowerBound)
            }
        }
    }

    /// How long until a task that makes others is asked about again: longer as the step grows older.
    func eagerness(_ change: StepTransaction) -> Duration {
        min(max(pace.eager, (change.now - change.step.created) / 10), pace.patient.lowerBound)
    }

    private func patience(_ change: StepTransaction) -> Duration {
        min(max(pace.patient.lowerBound, (change.now - change.step.created) / 10), pace.patient.upperBound)
    }
}
