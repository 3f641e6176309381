// SPDX-License-Identifier: MPL-2.0

import JSON

/// The first way in which schedules were written, before cron: `{"format": {"type": "daily", "timeOfDay": [6, 18]}}`.
///
/// Hours and days are counted in UTC. Such a schedule is translated once, when a hook is stored.
enum ScheduleFormat {
    private static let weekdays = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]

    /// The cron patterns that say the same; nil for anything that is no such schedule.
    static func patterns(_ schedule: JSONValue) -> [String]? {
        guard let format = schedule["format"], let type = format["type"]?.string else { return nil }
        let hours = numbers(format["timeOfDay"])
        switch type {
        case "none":
            return []
        case "daily":
            return hours.map { ["0 0 \($0) * * *"] }
        case "weekly":
            let names = format["dayOfWeek"]?.array?.compactMap(\.string) ?? []
            let days = names.compactMap { weekdays.firstIndex(of: $0) }
            guard let hours, !days.isEmpty, days.count == names.count else { return nil }
            return ["0 0 \(hours) * * \(list(days))"]
        case "monthly":
            guard let hours, let days = numbers(format["dayOfMonth"]) else { return nil }
            return ["0 0 \(hours) \(days) * *"]
        default:
            return nil
        }
    }

    private static func numbers(_ value: JSONValue?) -> String? {
        guard let values = value?.array, !values.isEmpty else { return nil }
        let numbers = values.compactMap(\.int)
        return numbers.count == values.count ? list(numbers) : nil
    }

    private static func list(_ numbers: [Int]) -> String {
        Set(numbers).sorted().map(String.init).joined(separator: ",")
    }
}
