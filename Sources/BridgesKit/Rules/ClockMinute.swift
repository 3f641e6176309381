// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// A minute of the clock that is announced, in UTC.
struct ClockMinute: Sendable, Hashable {
    static let length: Int64 = 60_000
    static let weekdays = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]

    /// When it begins.
    let start: Timestamp

    /// The minute that an instant is in.
    init(containing instant: Timestamp) {
        let remainder = ((instant.milliseconds % Self.length) + Self.length) % Self.length
        start = Timestamp(milliseconds: instant.milliseconds - remainder)
    }

    /// The minutes after this one; negative numbers lead back.
    func advanced(by minutes: Int) -> ClockMinute {
        ClockMinute(containing: Timestamp(milliseconds: start.milliseconds + Int64(minutes) * Self.length))
    }

    /// The day of the week in English.
    var weekday: String {
        let days = start.milliseconds >= 0 ? start.milliseconds / 86_400_000 : (start.milliseconds + 1) / 86_400_000 - 1
        // The first of January 1970 was a Thursday.
        return Self.weekdays[Int(((days + 4) % 7 + 7) % 7)]
    }

    /// `time.<year>.<month>.<day>.<weekday>.<hour>.<minute>`, numbers with leading zeros.
    var routingKey: String {
        "time.\(fields.joined(separator: "."))"
    }

    /// What is said about the minute.
    func payload(published: Timestamp) -> JSONValue {
        let fields = fields
        func number(_ index: Int) -> JSONValue { JSONValue(Int(fields[index]) ?? 0) }
        return [
            "version": 1,
            "source": "clock",
            "eventId": .string("time.\(start.iso8601)"),
            "time": .string(start.iso8601),
            "year": number(0),
            "month": number(1),
            "day": number(2),
            "weekday": .string(weekday),
            "hour": number(4),
            "minute": number(5),
            "published": .string(published.iso8601),
        ]
    }

    private var fields: [String] {
        // 2024-02-10T12:34:56.789Z
        let text = start.iso8601
        let parts = text.split(separator: "T")
        let date = parts[0].split(separator: "-").map(String.init)
        let time = parts[1].split(separator: ":").map(String.init)
        return date + [weekday] + time.prefix(2)
    }
}
