// SPDX-License-Identifier: MPL-2.0

import Testing

@testable import Schedules

struct TimestampTests {
    @Test(arguments: [
        ("2024-02-10T12:34:56.789Z", "2024-02-10T12:34:56.789Z"),
        ("2024-02-10T12:34:56Z", "2024-02-10T12:34:56.000Z"),
        ("2024-02-10 12:34:56.7Z", "2024-02-10T12:34:56.700Z"),
        ("2024-02-10t12:34:56.123456789z", "2024-02-10T12:34:56.123Z"),
        ("2024-02-29T23:30:00-01:30", "2024-03-01T01:00:00.000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
        ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
        ("0000-03-01T00:00:00+00:00", "0000-03-01T00:00:00.000Z"),
    ])
    func `a date-time is read with any offset and fraction`(_ text: String, _ expected: String) {
        #expect(Timestamp(text)?.iso8601 == expected)
    }

    @Test(arguments: [
        "", "2024-02-10", "2024-02-10T12:34:56", "2024-02-30T00:00:00Z", "2024-13-01T00:00:00Z", "2024-02-10T24:00:00Z",
        "2024-02-10T12:34:56.Z", "2024-02-10T12:34:56Z ", "2024-2-10T12:34:56Z", "2023-02-29T00:00:00Z",
    ])
    func `anything else is not a date-time`(_ text: String) {
        #expect(Timestamp(text) == nil)
    }

    @Test func `every day number is its date's day number`() {
        for day in stride(from: -800_000, through: 1_200_000, by: 37) {
            #expect(CalendarDate(dayNumber: day).dayNumber == day)
        }
    }

    @Test func `printing and reading are inverse`() {
        for _ in 0..<500 {
            let timestamp = Timestamp(milliseconds: .random(in: -60_000_000_000_000..<250_000_000_000_000))
            #expect(Timestamp(timestamp.iso8601) == timestamp)
        }
    }

    @Test func `the first and the last moment there are have a text`() {
        #expect(Timestamp(milliseconds: .min).iso8601 == "-292275055-05-16T16:47:04.192Z")
        #expect(Timestamp(milliseconds: .max).iso8601 == "+292278994-08-17T07:12:55.807Z")
        #expect(Timestamp(seconds: -.infinity).iso8601 == Timestamp(milliseconds: .min).iso8601)
    }

    @Test func `durations add and subtract`() {
        let start = Timestamp(milliseconds: 1000)
        #expect((start + .milliseconds(1500)).milliseconds == 2500)
        #expect((start - .seconds(2)).milliseconds == -1000)
        #expect(start - Timestamp(milliseconds: 250) == .milliseconds(750))
        #expect(Timestamp(seconds: 1.2345).milliseconds == 1234)
        #expect(Timestamp.now().milliseconds > 1_700_000_000_000)
        // What is beyond all moments is the last of them, and never the other end.
        let ends = (first: Timestamp(milliseconds: .min), last: Timestamp(milliseconds: .max))
        #expect(ends.last + .seconds(1) == ends.last)
        #expect(ends.first - .seconds(1) == ends.first)
        #expect(start - ends.first == .milliseconds(Int64.max))
        #expect(ends.first - start == .milliseconds(Int64.min))
    }
}

struct RelativeTimeTests {
    private static let base = Timestamp(milliseconds: 1_577_836_800_000)

    @Test(arguments: [
        ("1 year 1 month 1 week 1 day 1 hour 1 minute 1 second", "2021-02-07T01:01:01.000Z"),
        ("1 yr 2 mo 3 wk 4 d 5 hr 6 min 7 sec", "2021-03-26T05:06:07.000Z"),
        ("1 month 1 m", "2020-01-31T00:01:00.000Z"),
        ("", "2020-01-01T00:00:00.000Z"),
        ("1day2h", "2020-01-02T02:00:00.000Z"),
        ("- 1 Day 1 HOUR", "2019-12-30T23:00:00.000Z"),
        ("+5s", "2020-01-01T00:00:05.000Z"),
        ("  7 weeks  ", "2020-02-19T00:00:00.000Z"),
    ])
    func `relative times are read`(_ text: String, _ expected: String) throws {
        #expect(try RelativeTime(text).from(Self.base).iso8601 == expected)
    }

    @Test(arguments: [
        "1 day 2 weeks", "1 fortnight", "5", "1.5 days", "day", "1 day 1 day", "--1 day", "1 day -2 hours",
    ])
    func `other texts are refused`(_ text: String) {
        #expect(throws: RelativeTimeError.self) { try RelativeTime(text) }
    }
}
