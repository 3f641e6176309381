// SPDX-License-Identifier: MPL-2.0

import Testing

@testable import Schedules

struct CronTests {
    private static let reference = Timestamp(milliseconds: 1_707_568_496_789)

    private static func instants(_ pattern: String, after start: Timestamp = reference, count: Int) throws -> [String] {
        let expression = try CronExpression(pattern)
        var instants: [String] = []
        var last = start
        while instants.count < count, let next = expression.next(after: last) {
            instants.append(next.iso8601)
            last = next
        }
        return instants
    }

    @Test(arguments: [
        ("0 0 12 13 * 5", ["2024-02-13T12:00:00.000Z", "2024-02-16T12:00:00.000Z"]),
        ("0 0 0 * * 1#2", ["2024-02-12T00:00:00.000Z", "2024-03-11T00:00:00.000Z"]),
        ("0 0 0 L * *", ["2024-02-29T00:00:00.000Z", "2024-03-31T00:00:00.000Z"]),
        ("56 34 12 10 2 *", ["2025-02-10T12:34:56.000Z"]),
        ("57 34 12 10 2 *", ["2024-02-10T12:34:57.000Z"]),
        ("0 0 29 2 *", ["2024-02-29T00:00:00.000Z", "2028-02-29T00:00:00.000Z"]),
        ("0 0 0 30 2 1", ["2024-02-12T00:00:00.000Z", "2024-02-19T00:00:00.000Z"]),
        ("0 0 0 * * 1#5", ["2024-04-29T00:00:00.000Z", "2024-07-29T00:00:00.000Z"]),
        ("0 0 0 * * 1,5L", ["2024-02-12T00:00:00.000Z", "2024-02-19T00:00:00.000Z", "2024-02-23T00:00:00.000Z"]),
        ("0 0 0 1,L * ?", ["2024-02-29T00:00:00.000Z", "2024-03-01T00:00:00.000Z"]),
        ("0 0 0 */15 * 3", ["2024-02-14T00:00:00.000Z", "2024-02-16T00:00:00.000Z"]),
        ("0 0 * * 5-7", ["2024-02-11T00:00:00.000Z", "2024-02-16T00:00:00.000Z"]),
        ("0 0 0 * MAR sun", ["2024-03-03T00:00:00.000Z"]),
        ("*/40 * * * *", ["2024-02-10T12:40:00.000Z", "2024-02-10T13:00:00.000Z"]),
        ("50/3 * * * *", ["2024-02-10T12:50:00.000Z", "2024-02-10T12:53:00.000Z"]),
        ("  @weekly\t", ["2024-02-11T00:00:00.000Z"]),
        ("@weekends", ["2024-02-11T00:00:00.000Z", "2024-02-17T00:00:00.000Z"]),
        ("@yearly", ["2025-01-01T00:00:00.000Z"]),
    ])
    func `H60: patterns fire at these instants`(_ pattern: String, _ expected: [String]) throws {
        #expect(try Self.instants(pattern, count: expected.count) == expected)
    }

    @Test(arguments: [
        ("0 0 3 0 * *", "Constraint error, got value 0 expected range 1-31"),
        ("0 0 0 30 2 *", "Invalid explicit day of month definition"),
        ("x", "expected 5 or 6 fields"),
        ("", "expected 5 or 6 fields"),
        ("* * *", "expected 5 or 6 fields"),
        ("1 2 3 4 5 6 7", "too many fields"),
        ("1,2,2 * * * *", "duplicate values found"),
        ("1,1-3 * * * *", "duplicate values found"),
        ("* 22-2 * * *", "min(22) > max(2)"),
        ("* * * * FRI-MON", "min(5) > max(1)"),
        ("*/0 * * * *", "cannot repeat at every 0 time"),
        ("0 0 L-2 * *", "Invalid characters"),
        ("0 0 * * L", "Invalid characters"),
        ("0 0 * * 1#6", "occurrence"),
        ("0 0 * * 1,2#3", "incompatible"),
        ("0 0 15W * *", "Invalid characters"),
        ("1.5 * * * *", "Invalid characters"),
        ("-1 * * * *", "Invalid characters"),
        ("H * * * *", "Invalid characters"),
        ("@Daily", "expected 5 or 6 fields"),
        ("@reboot", "expected 5 or 6 fields"),
        ("1, * * * *", "Invalid characters"),
    ])
    func `H15: broken patterns are refused with the reason`(_ pattern: String, _ reason: String) {
        #expect {
            try CronExpression(pattern)
        } throws: { error in
            "\(error)".contains(reason)
        }
    }

    @Test func `H16: a pattern may parse and never match`() throws {
        #expect(try CronExpression("0 0 0 31 4,6 *").next(after: Self.reference) == nil)
    }

    @Test func `Sunday may be written twice as 0 and 7 only`() throws {
        #expect(try Self.instants("0 0 * * 0,7", count: 1) == ["2024-02-11T00:00:00.000Z"])
        #expect(throws: CronError.self) { try CronExpression("0 0 * * 7,7") }
    }

    @Test func `H62: several patterns give the earliest instant`() throws {
        let patterns = try ["0 0 3 * * *", "0 0 9 * * *"].map { text throws in try CronExpression(text) }
        #expect(Schedule.next(patterns, after: Self.reference)?.iso8601 == "2024-02-11T03:00:00.000Z")
        #expect(Schedule.next([], after: Self.reference) == .farFuture)
        #expect(Timestamp.farFuture.iso8601 == "4000-02-01T00:00:00.000Z")
    }

    @Test(arguments: [
        "7 3 1 * *", "59 23 L * *", "*/17 5-9 * 2,3 1-5", "1 1 1 2,5 1", "3 4 13 * 5", "0 0 * * 2L",
        "0 0 * * 4#3", "0 12 */10 */5 *",
    ])
    func `next agrees with trying every minute`(_ pattern: String) throws {
        let expression = try CronExpression(pattern)
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2 {
            let start = Timestamp(milliseconds: .random(in: 1_600_000_000_000..<1_800_000_000_000, using: &random))
            let next = try #require(expression.next(after: start))
            var minute = start.milliseconds / 60_000 + 1
            while !BruteForceCron.matches(pattern, minute: Int(minute)) { minute += 1 }
            #expect(next.milliseconds == minute * 60_000, "\(pattern) after \(start)")
        }
    }
}

/// Decides by plain reading of a five-field pattern whether a minute matches.
private enum BruteForceCron {
    static func matches(_ pattern: String, minute: Int) -> Bool {
        let fields = pattern.split(separator: " ").map(String.init)
        let date = CalendarDate(dayNumber: minute / 1440)
        guard field(fields[0], minute % 60, 59), field(fields[1], minute / 60 % 24, 23),
            field(fields[3], date.month, 12)
        else { return false }
        let length = CalendarDate.length(ofMonth: date.month, year: date.year)
        let byMonth = fields[2] == "L" ? date.day == length : field(fields[2], date.day, 31)
        let byWeek =
            switch fields[4].last {
            case "L": fields[4].first?.wholeNumberValue == date.weekday && date.day + 7 > length
            case _ where fields[4].contains("#"):
                fields[4].first?.wholeNumberValue == date.weekday
                    && fields[4].last?.wholeNumberValue == (date.day - 1) / 7 + 1
            default: field(fields[4], date.weekday, 7)
            }
        if fields[2] == "*" { return byWeek }
        if fields[4] == "*" { return byMonth }
        return byMonth || byWeek
    }

    private static func field(_ text: String, _ value: Int, _ maximum: Int) -> Bool {
        text.split(separator: ",").contains { part in
            let pieces = part.split(separator: "/")
            let step = pieces.count == 2 ? Int(pieces[1]) ?? 1 : 1
            let ends = pieces[0].split(separator: "-").compactMap { Int($0) }
            let base = maximum == 31 || maximum == 12 ? 1 : 0
            let low = ends.first ?? base
            let high = pieces[0] == "*" ? maximum : ends.last ?? low
            return low <= value && value <= high && (value - low) % step == 0
        }
    }
}
