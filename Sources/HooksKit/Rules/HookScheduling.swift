// SPDX-License-Identifier: MPL-2.0

package import Core
package import JSON
package import Schedules

/// The member `scheduling` of a hook: how its schedule is to be read and what to do about missed instants.
package struct HookScheduling: Sendable, Hashable {
    package var timeZone = "UTC"
    package var catchUp = FiringPlan.CatchUp.none
    package var jitter = Duration.zero

    /// How many missed instants fire under the policy `all`, unless the hook says otherwise.
    static let usualLimit = 24

    /// Reads the validated options of a hook; what they leave out has its usual value.
    package init(options: JSONObject) {
        let json = options["scheduling"]
        timeZone = json?["timeZone"]?.string ?? timeZone
        jitter = .seconds(json?["jitter"]?.int ?? 0)
        switch json?["catchUp"]?.string {
        case "last": catchUp = .last
        case "all": catchUp = .all(limit: json?["catchUpLimit"]?.int ?? Self.usualLimit)
        default: catchUp = .none
        }
    }

    /// Makes the plan of a hook's patterns.
    package func plan(
        of schedule: [String],
        for name: HookName,
        zones: TimeZoneFiles
    ) throws(InvalidHook) -> FiringPlan {
        var patterns: [CronExpression] = []
        for pattern in schedule {
            do { patterns.append(try CronExpression(pattern)) } catch {
                throw InvalidHook(message: "\(error) in \(pattern)")
            }
        }
        let zone: TimeZoneRules
        do { zone = try zones.rules(of: timeZone) } catch {
            throw InvalidHook(message: "\(error) in \(timeZone)")
        }
        return FiringPlan(patterns: patterns, zone: zone, jitter: jitter, seed: name.description)
    }
}

extension HookRules {
    /// The first instant of a definition's schedule after a time: never, if it has no schedule.
    ///
    /// Every single pattern must come at some time, or the author has made a mistake.
    package func firstDue(of definition: HookDefinition, after now: Timestamp) throws(InvalidHook) -> FiringPlan.Due {
        let scheduling = HookScheduling(options: definition.options)
        let plan = try scheduling.plan(of: definition.schedule, for: definition.name, zones: zones)
        for pattern in definition.schedule {
            let alone = try scheduling.plan(of: [pattern], for: definition.name, zones: zones)
            guard alone.next(after: now) != nil else {
                throw InvalidHook(message: "Never matches any date in \(pattern)")
            }
        }
        return plan.next(after: now) ?? .never
    }
}
