// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Schedules
import StepKit
import TaskclusterClient

extension TaskclusterService {
    /// Cancels what a step has begun: first the task that makes others, then what they offer for it, then the group.
    ///
    /// Each part may be done again, so that a process that dies in between is taken over at any point.
    func stop(_ look: Look) async throws {
        var look = look
        if !look.run.hasBegun {
            guard look.run.intended != nil || look.run.mode == "task" else {
                return try await stopped(look, "cancelled before anything was begun", [])
            }
            guard let begun = try await discovered(look) else { return }
            look = begun
            if !look.run.hasBegun { return try await stopped(look, "cancelled before anything was begun", []) }
        }
        var problems: [String] = []
        if look.run.mode != "track", let id = look.run.taskID {
            try await attempt("cancelTask", &problems, forgiving: [404, 409]) { () async throws(TaskclusterError) in
                _ = try await client.queue.cancelTask(id)
            }
            if look.run.groupID == nil, let group = try await task(id)?.group {
                guard let next = try await note(look, { _, run in run.groupID = group }) else { return }
                look = next
            }
        }
        guard let group = look.run.groupID, ownsGroup(look) else {
            return try await stopped(look, "cancelled", problems)
        }
        if look.run.cancelledAll == nil {
            // Once: whatever becomes of it, cancelling the group follows.
            guard let next = try await note(look, { change, run in run.cancelledAll = change.now }) else { return }
            look = next
            try await cancelAll(group, look, &problems)
        }
        var isGone = false
        try await attempt("sealTaskGroup", &problems) { () async throws(TaskclusterError) in
            do throws(TaskclusterError) {
                _ = try await client.queue.sealTaskGroup(group)
            } catch {
                guard error.status == 404 else { throw error }
                isGone = true
            }
        }
        if !isGone {
            try await attempt("cancelTaskGroup", &problems) { () async throws(TaskclusterError) in
                _ = try await client.call("queue", "POST", ["task-group", group, "cancel"])
            }
        }
        try await stopped(look, "cancelled", problems)
    }

    /// Whether a group is there because of the step, so that it is cancelled with it; a task that was put into the group of
    /// others takes nobody with it unless the definition says so.
    private func ownsGroup(_ look: Look) -> Bool {
        guard let group = look.run.groupID else { return false }
        if look.run.mode == "track" { return look.definition.cancels }
        return group == look.run.taskID || look.step.definition["cancel_on_delete"] == true
    }

    private func stopped(_ look: Look, _ message: String, _ problems: [String]) async throws {
        try await settle(look) { change, run in
            let text = ([look.step.message.isEmpty ? message : look.step.message] + problems).joined(separator: "; ")
            if !problems.isEmpty { change.record("cancel_incomplete", ["problems": JSONValue(problems)]) }
            describe(run, &change)
            change.move(to: .cancelled, message: String(text.prefix(2000)))
        }
    }

    /// Does one part; refusals that are final are told in the end, others end the look.
    private func attempt(
        _ name: String,
        _ problems: inout [String],
        forgiving: Set<Int> = [],
        _ body: () async throws(TaskclusterError) -> Void
    ) async throws {
        do throws(TaskclusterError) {
            try await body()
        } catch {
            if let status = error.status, forgiving.contains(status) { return }
            guard Self.isFinal(error) || error.status == 401 || error.status == 403 else { throw error }
            problems.append("\(name): \(Self.excerpt(error))")
        }
    }

    /// The look with what was begun, if anything was; nil if that is not known yet.
    private func discovered(_ look: Look) async throws -> Look? {
        if let id = try await discovered(look.run) {
            let group = try await task(id)?.group
            return try await note(look) { _, run in
                run.taskID = id
                run.groupID = group
                run.hasBegun = true
            }
        }
        guard let intended = look.run.intended, store.now() < intended + pace.doubt else { return look }
        // A trigger may still be on its way.
        try await settle(look) { change, _ in
            change.step.nextCheck = change.now + min(pace.eager, pace.doubt / 4)
        }
        return nil
    }

    /// Triggers the action that decision tasks offer for cancelling everything, where there is one.
    private func cancelAll(_ group: String, _ look: Look, _ problems: inout [String]) async throws {
        let wanted: (group: String, hook: String, payload: JSONValue)
        do {
            wanted = try await action("cancel-all", of: group, input: [:], look.step)
        } catch is ActionProblem {
            // Most groups offer nothing of the kind.
            return
        }
        do throws(TaskclusterError) {
            _ = try await triggerOnce(wanted.group, wanted.hook, wanted.payload)
        } catch {
            problems.append("cancel-all: \(Self.excerpt(error))")
        }
    }
}
