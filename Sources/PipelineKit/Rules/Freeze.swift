// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// A time during which steps are not started.
struct Freeze: Sendable {
    /// When it holds.
    enum Period: Sendable {
        case once(Timestamp, Timestamp)
        /// Again and again, from one moment of a calendar to another.
        case recurring(start: CronExpression, end: CronExpression, zone: TimeZoneRules)
    }

    let uid: String
    /// Why nothing starts, as people read it.
    let reason: String
    let period: Period
    let labels: JSONObject
    let apiPrefix: String?
    let stepPattern: String?
    /// The scopes of which one is needed to start something all the same; none asks for no more than the endpoint does.
    var overrideScopes: [String] = []

    /// When it ends, if it holds at a moment.
    func end(at now: Timestamp) -> Timestamp? {
        switch period {
        case .once(let start, let end):
            return start <= now && now < end ? end : nil
        case .recurring(let start, let end, let zone):
            // It holds if it ends before it begins again.
            guard let ends = end.next(after: now, in: zone) else { return nil }
            guard let starts = start.next(after: now, in: zone) else { return ends }
            return ends < starts ? ends : nil
        }
    }

    /// When it begins or ends next; nil for never.
    func change(after now: Timestamp) -> Timestamp? {
        switch period {
        case .once(let start, let end):
            [start, end].filter { $0 > now }.min()
        case .recurring(let start, let end, let zone):
            [start.next(after: now, in: zone), end.next(after: now, in: zone)].compactMap(\.self).min()
        }
    }

    func covers(_ step: StepSpecification, of pipeline: PipelineDefinition, at now: Timestamp) -> Bool {
        guard labels.allSatisfy({ pipeline.labels[$0.key] == $0.value }) else { return false }
        if let apiPrefix, !step.apiURL.hasPrefix(apiPrefix) { return false }
        if let stepPattern, !Glob.matches(step.uid, stepPattern) { return false }
        return end(at: now) != nil
    }
}

/// Patterns in which `*` stands for any text.
enum Glob {
    static func matches(_ text: String, _ pattern: String) -> Bool {
        let pieces = pattern.split(separator: "*", omittingEmptySubsequences: false)
        guard pieces.count > 1, let first = pieces.first, let last = pieces.last else { return text == pattern }
        guard text.hasPrefix(first), text.utf8.count >= first.utf8.count + last.utf8.count else { return false }
        var rest = text.dropFirst(first.count)
        guard rest.hasSuffix(last) else { return false }
        rest = rest.dropLast(last.count)
        for piece in pieces.dropFirst().dropLast() where !piece.isEmpty {
            guard let range = rest.firstRange(of: piece) else { return false }
            rest = rest[range.upperBound...]
        }
        return true
    }
}
