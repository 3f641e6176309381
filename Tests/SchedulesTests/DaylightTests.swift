// SPDX-License-Identifier: MPL-2.0

import Testing

@testable import Schedules

/// What schedules do when clocks change.
///
/// Berlin: 2024-03-31 02:00 → 03:00 at 01:00Z, 2024-10-27 03:00 → 02:00 at 01:00Z.
struct DaylightTests {
    private func instants(_ pattern: String, _ zone: String, after start: String, count: Int) throws -> [String] {
        let expression = try CronExpression(pattern)
        let zone = try Zones.system(zone)
        var last = try #require(Timestamp(start))
        var found: [String] = []
        while found.count < count, let next = expression.next(after: last, in: zone) {
            found.append(String(next.iso8601.dropLast(5)))
            last = next
        }
        return found
    }

    @Test(arguments: [
        // An ordinary day, in winter and in summer.
        ("0 30 9 * * MON-FRI", "2024-01-12T12:00:00Z", ["2024-01-15T08:30:00", "2024-01-16T08:30:00"]),
        ("0 30 9 * * *", "2024-07-01T12:00:00Z", ["2024-07-02T07:30:00"]),
        // The skipped hour: once, when the clocks skip it.
        (
            "0 30 2 * * *", "2024-03-29T12:00:00Z",
            ["2024-03-30T01:30:00", "2024-03-31T01:00:00", "2024-04-01T00:30:00"]
        ),
        // Several times within it fall together, also with the time after it.
        ("0 */15 2 * * *", "2024-03-31T00:00:00Z", ["2024-03-31T01:00:00", "2024-04-01T00:00:00"]),
        ("0 30 2,3 * * *", "2024-03-31T00:00:00Z", ["2024-03-31T01:00:00", "2024-03-31T01:30:00"]),
        ("0 0 2,3 * * *", "2024-03-31T00:00:00Z", ["2024-03-31T01:00:00", "2024-04-01T00:00:00"]),
        // The doubled hour: the first of both.
        ("0 30 2 * * *", "2024-10-26T12:00:00Z", ["2024-10-27T00:30:00", "2024-10-28T01:30:00"]),
        ("0 30 2 * * *", "2024-10-27T00:30:00Z", ["2024-10-28T01:30:00"]),
        ("0 0 3 * * *", "2024-10-27T00:30:00Z", ["2024-10-27T02:00:00"]),
        ("0 0,30 2 * * *", "2024-10-27T00:10:00Z", ["2024-10-27T00:30:00", "2024-10-28T01:00:00"]),
    ])
    func `patterns for certain hours come once a day`(
        _ pattern: String,
        _ start: String,
        _ expected: [String]
    ) throws {
        #expect(try instants(pattern, "Europe/Berlin", after: start, count: expected.count) == expected)
    }

    @Test(arguments: [
        // Nothing to make up for in the skipped hour.
        (
            "0 */30 * * * *", "2024-03-31T00:29:00Z",
            ["2024-03-31T00:30:00", "2024-03-31T01:00:00", "2024-03-31T01:30:00"]
        ),
        ("0 45 * * * *", "2024-03-31T00:30:00Z", ["2024-03-31T00:45:00", "2024-03-31T01:45:00"]),
        // The doubled hour happens twice.
        (
            "0 30 * * * *", "2024-10-27T00:00:00Z",
            ["2024-10-27T00:30:00", "2024-10-27T01:30:00", "2024-10-27T02:30:00"]
        ),
    ])
    func `patterns for every hour follow elapsed time`(
        _ pattern: String,
        _ start: String,
        _ expected: [String]
    ) throws {
        #expect(try instants(pattern, "Europe/Berlin", after: start, count: expected.count) == expected)
    }

    @Test func `a day that a place leaves out comes at its end`() throws {
        // Samoa had no 30 December 2011: after the 29th at 24:00 (10:00Z) came the 31st.
        let found = try instants("0 0 12 30 12 *", "Pacific/Apia", after: "2011-06-01T00:00:00Z", count: 2)
        #expect(found == ["2011-12-30T10:00:00", "2012-12-29T22:00:00"])
    }

    @Test func `half-hour changes and midnight changes are handled alike`() throws {
        // Lord Howe skips half an hour from 2:00, Santiago the hour from midnight.
        let half = try instants("0 15 2 * * *", "Australia/Lord_Howe", after: "2024-10-05T12:00:00Z", count: 1)
        #expect(half == ["2024-10-05T15:30:00"])
        let midnight = try instants("0 0 0 * * *", "America/Santiago", after: "2024-09-07T12:00:00Z", count: 2)
        #expect(midnight == ["2024-09-08T04:00:00", "2024-09-09T03:00:00"])
    }

    @Test func `rare days are found years ahead`() throws {
        let found = try instants("0 30 2 29 2 *", "America/New_York", after: "2045-01-01T00:00:00Z", count: 2)
        #expect(found == ["2048-02-29T07:30:00", "2052-02-29T07:30:00"])
        #expect(try instants("0 0 * 31 4,6 *", "America/New_York", after: "2045-01-01T00:00:00Z", count: 1) == [])
    }

    @Test(arguments: ["0 */20 * * * *", "0 15,45 1-3 * * *", "0 0 */2 * * *", "0 7 2 * * 0"])
    func `next agrees with a clock that is watched minute by minute`(_ pattern: String) throws {
        let zone = try Zones.system("Europe/Berlin")
        let expression = try CronExpression(pattern)
        let runs = pattern.split(separator: " ")[2] == "*"
        for start in ["2024-03-30T20:00:00Z", "2024-10-26T20:00:00Z"] {
            let begin = try #require(Timestamp(start))
            let end = begin + .seconds(12 * 3600)
            var expected: [Timestamp] = []
            var seen: Set<Int64> = []
            var previous = Int64(zone.offset(at: begin))
            for minute in 0..<(12 * 60) {
                let instant = begin + .seconds(minute * 60)
                let offset = Int64(zone.offset(at: instant))
                let wall = Timestamp(milliseconds: instant.milliseconds + offset * 1000)
                // Minutes the clocks have just jumped over count now, unless the pattern only follows elapsed time.
                let skipped = runs || offset <= previous ? 0 : (offset - previous) / 60
                let shown = (0...skipped).map { Timestamp(milliseconds: wall.milliseconds - $0 * 60_000) }
                let matches = shown.contains { wall in
                    expression.next(after: wall - .seconds(1)) == wall
                        && (runs || seen.insert(wall.milliseconds).inserted)
                }
                if matches { expected.append(instant) }
                previous = offset
            }
            var found: [Timestamp] = []
            var last = begin - .seconds(1)
            while let next = expression.next(after: last, in: zone), next < end {
                found.append(next)
                last = next
            }
            #expect(found == expected, "\(pattern) from \(start)")
        }
    }
}
