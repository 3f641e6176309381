// SPDX-License-Identifier: MPL-2.0

import JSON
import Notices
import Postgres
import Pulse
import Schedules
import StepKit

/// Tells people and programs of what happens to pipelines, once each.
///
/// What is to be told commits with what happened; a name for each happening keeps it from being told twice, however
/// often a pipeline is looked at.
struct PipelineNotices: Sendable {
    /// Something that has happened.
    struct Happening: Sendable {
        var event: NotifyRule.Event
        var step: String?
        var text = ""
        /// Tells apart what may happen to the same step several times.
        var mark = ""
        /// For how many seconds approval has been missing, where this is about that.
        var waited = 0
        /// What is missing: one of these, each of them with all its groups.
        var missing: [JSONValue] = []

        init(_ event: NotifyRule.Event, step: String? = nil, _ text: String = "", mark: String = "") {
            self.event = event
            self.step = step
            self.text = text
            self.mark = mark
        }
    }

    let store: StepStore
    let queue: NoticeStore
    private let lists: GroupLists

    init(store: StepStore, limit: NoticeStore.Limit, lists: GroupLists = .none) {
        self.store = store
        self.lists = lists
        queue = NoticeStore(schema: store.schema, pool: store.pool, limit: limit)
    }

    /// The exchange for those who ask to be told by the bus.
    var exchange: String {
        let parts = store.announcement.exchange.split(separator: "/", omittingEmptySubsequences: false)
        return (parts.dropLast() + ["pipeline-notices"]).joined(separator: "/")
    }

    // MARK: - Telling

    /// Adds what the rules of a pipeline say of happenings to the transaction of their cause.
    func tell(
        _ happenings: [Happening],
        _ definition: PipelineDefinition,
        _ change: StepTransaction
    ) async throws {
        for happening in happenings {
            let rules = definition.notify.enumerated().filter { $1.events.contains(happening.event) }
            for (index, rule) in rules { try await tell(happening, rule, String(index), definition, change) }
            for target in lists.targets(missing: happening.missing) {
                // Whom the pipeline names already is told as that says.
                guard !rules.contains(where: { $1.channel == target.channel && $1.target == target.address }),
                    happening.event == .signoffNeeded || lists.interval != nil
                else { continue }
                var rule = NotifyRule(events: [happening.event], channel: target.channel, target: target.address)
                rule.interval = lists.interval ?? rule.interval
                let name = "list.\(target.channel.rawValue).\(target.address)"
                try await tell(happening, rule, name, definition, change)
            }
        }
    }

    /// Forgets reminders that were not sent yet of steps that no longer wait for people.
    func forgetReminders(_ after: Evaluation, _ before: [StepRun], _ change: StepTransaction) async throws {
        for run in before where run.state == .running && run.remoteInfo["missing"] != nil {
            guard after.steps[run.uid]?.state != .running else { continue }
            let parts = [String(change.step.id), NotifyRule.Event.signoffReminder.rawValue, run.uid, ""]
            try await queue.withdraw(beginning: parts.joined(separator: "."), on: change.connection)
        }
    }

    private func tell(
        _ happening: Happening,
        _ rule: NotifyRule,
        _ name: String,
        _ definition: PipelineDefinition,
        _ change: StepTransaction
    ) async throws {
        var mark = happening.mark
        if happening.event == .signoffReminder {
            // The first reminder comes after one interval.
            guard happening.waited >= rule.interval else { return }
            mark += ".\(happening.waited / rule.interval)"
        }
        let parts = [String(change.step.id), happening.event.rawValue, happening.step ?? "", mark, name]
        let document: JSONObject = [
            "id": .string(parts.joined(separator: ".")),
            "event": .string(happening.event.rawValue),
            "pipeline": .string(definition.uid),
            "step": happening.step.map { .string($0) } ?? .null,
            "state": .string(change.step.state.rawValue),
            "message": .string(happening.text),
            "labels": .object(definition.labels),
            "url": .string("\(store.announcement.baseURL)/\(definition.uid)"),
            "at": .string(change.now.iso8601),
        ]
        let place = happening.step.map { "\(definition.uid): \($0)" } ?? definition.uid
        let subject = "\(place): \(happening.event.rawValue.split(separator: "_").joined(separator: " "))"
        let text = happening.text.isEmpty ? subject : "\(subject)\n\n\(happening.text)"
        var notice = Notice(
            key: parts.joined(separator: "."),
            channel: .email,
            target: rule.target,
            subject: subject,
            text: text,
            document: .object(document),
            digest: rule.digest.map { .seconds($0) }
        )
        switch rule.channel {
        case .email: notice.channel = .email
        case .matrix: notice.channel = .matrix
        case .slack: notice.channel = .slack
        case .webhook: notice.channel = .webhook
        case .pulse:
            // The outbox delivers it; the queue of notices only remembers that it was told.
            notice.channel = .bus
            guard try await queue.add(notice, on: change.connection) else { return }
            let uid = StepAnnouncement.word(definition.uid)
            let message = PulseMessage(
                exchange: exchange,
                routingKey: "primary.\(happening.event.rawValue).\(uid).\(rule.target)",
                payload: notice.document
            )
            try await store.outbox.add([message], on: change.connection)
            return
        }
        _ = try await queue.add(notice, on: change.connection)
    }

    // MARK: - What has happened

    /// What has happened between two looks; with the pipeline if it has ended.
    static func happenings(_ after: Evaluation, _ before: [StepRun], end: Step?) -> [Happening] {
        let old = Dictionary(before.map { ($0.uid, $0) }) { first, _ in first }
        var list = after.ordered.flatMap { happenings($0, old[$0.uid], after) }
        for note in after.notes where note.kind == "unreachable" {
            let attempt = after.steps[note.step]?.attempt ?? 1
            let since = after.steps[note.step]?.unreachableSince?.milliseconds ?? 0
            let text = note.data["message"]?.string ?? ""
            list.append(Happening(.unreachable, step: note.step, text, mark: "\(attempt).\(since)"))
        }
        guard let end else { return list }
        let mark = String(end.attempt)
        switch end.state {
        case .completed: list.append(Happening(.pipelineCompleted, end.message, mark: mark))
        case .failed, .exception: list.append(Happening(.pipelineFailed, end.message, mark: mark))
        case .cancelled: list.append(Happening(.pipelineCancelled, end.message, mark: mark))
        case .pending, .starting, .running, .stopping: break
        }
        return list
    }

    private static func happenings(_ run: StepRun, _ old: StepRun?, _ after: Evaluation) -> [Happening] {
        var list: [Happening] = []
        let attempt = String(run.attempt)
        let isNew = old?.state != run.state
        if isNew, run.state == .failed || run.state == .exception {
            list.append(Happening(.stepFailed, step: run.uid, run.message, mark: attempt))
        }
        if run.state == .running, let missing = run.remoteInfo["missing"]?.array, !missing.isEmpty {
            let text = "missing: " + missing.map { $0.text() }.joined(separator: " or ")
            var happening = Happening(.signoffNeeded, step: run.uid, text, mark: attempt)
            happening.missing = missing
            let waited = (after.now.milliseconds - (run.started ?? after.now).milliseconds) / 1000
            happening.waited = Int(waited)
            if isNew || old?.remoteInfo["missing"] != run.remoteInfo["missing"] { list.append(happening) }
            happening.event = .signoffReminder
            list.append(happening)
        }
        if let signatures = run.remoteInfo["signatures"]?.array, old?.attempt == run.attempt {
            let earlier = old?.remoteInfo["signatures"]?.array ?? []
            list += people(signatures, without: earlier).map { Happening(.signed, step: run.uid, $0.0, mark: $0.1) }
            list += people(earlier, without: signatures).map { Happening(.unsigned, step: run.uid, $0.0, mark: $0.1) }
        }
        if run.state == .pending, let step = after.specification(run.uid), after.requirement(step) == .met,
            let freeze = after.freeze(step, run), !after.isPaused
        {
            let end = freeze.end(at: after.now)?.iso8601 ?? "it is ended"
            list.append(Happening(.freezeBlocked, step: run.uid, "until \(end)", mark: "\(attempt).\(freeze.uid)"))
        }
        return list
    }

    /// Who is in one list of signatures and not in another, with a mark for each.
    private static func people(_ list: [JSONValue], without others: [JSONValue]) -> [(String, String)] {
        list.filter { !others.contains($0) }.map { signature in
            let name = signature["name"]?.string ?? "somebody"
            let moment = signature["created"]?.string ?? ""
            return ("\(name) for \(signature["group"]?.string ?? "nobody")", "\(name) \(moment)")
        }
    }
}
