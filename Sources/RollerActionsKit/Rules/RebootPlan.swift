// SPDX-License-Identifier: MPL-2.0

import JSON
import RollerKit

/// Which methods a reboot will use, in which order, and why others are left out.
struct RebootPlan {
    /// How hard one may go at it.
    enum Mode: String {
        /// As the policy says.
        case escalate
        /// Only asking the operating system.
        case soft
        /// Without asking the operating system.
        case hard
    }

    /// One step of the plan.
    struct Entry {
        var step: RebootStep
        var method: (any RebootMethod)?
        /// Why it is left out.
        var skipped: String?
    }

    var entries: [Entry]

    init(
        _ target: ActionTarget,
        mode: Mode,
        settings: ActionSettings,
        registry: ActionRegistry,
        downTimeout: Duration,
        upTimeout: Duration
    ) throws(ActionError) {
        var steps = settings.rebootPolicy
        if let own = target.properties["reboot_policy"] { steps = try RebootStep.parse(own) }
        entries = []
        for step in steps {
            guard let method = registry.method(step.method) else {
                entries.append(Entry(step: step, skipped: "there is no such method"))
                continue
            }
            entries.append(Entry(step: step, method: method, skipped: Self.obstacle(method, target, mode, settings)))
        }
        dropWhatDoesNotFit(target, settings, perMethod: downTimeout + upTimeout + .seconds(5))
    }

    static func mode(_ job: ActionJob) throws(ActionError) -> Mode {
        guard let text = job.params["mode"]?.string else { return .escalate }
        guard let mode = Mode(rawValue: text) else { throw ActionError(.config, "the mode is soft, hard or escalate") }
        return mode
    }

    private static func obstacle(
        _ method: any RebootMethod,
        _ target: ActionTarget,
        _ mode: Mode,
        _ settings: ActionSettings
    ) -> String? {
        if method is FileBugzillaBug { return settings.bugzilla == nil ? "no Bugzilla is configured" : nil }
        guard method.isApplicable(to: target) else {
            let kinds = method.description.controls.map(\.rawValue).joined(separator: " or ")
            return "the machine has no \(kinds) control"
        }
        if mode == .soft, method.isHard { return "only soft methods are wanted" }
        if mode == .hard, !method.isHard { return "only hard methods are wanted" }
        return nil
    }

    /// Leaves out methods from the end, where all together may take longer than the job has.
    private mutating func dropWhatDoesNotFit(_ target: ActionTarget, _ settings: ActionSettings, perMethod: Duration) {
        func cost(_ entry: Entry) -> Duration {
            guard let method = entry.method, entry.skipped == nil, !(method is FileBugzillaBug) else { return .zero }
            return method.budget(target) + perMethod
        }
        var total = entries.reduce(Duration.zero) { $0 + cost($1) }
        for index in entries.indices.reversed() where total > settings.softLimit {
            let saved = cost(entries[index])
            // The first method that would do anything stays, however short the time.
            guard saved > .zero, entries[..<index].contains(where: { cost($0) > .zero }) else { continue }
            total -= saved
            entries[index].skipped = "the soft time limit leaves no room for it"
        }
    }
}
