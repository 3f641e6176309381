// SPDX-License-Identifier: MPL-2.0

import Glibc
import Synchronization
import Testing

@testable import Schedules

/// Zones of the system, and zones that consist of a rule alone.
enum Zones {
    static func system(_ name: String) throws -> TimeZoneRules {
        let file = try #require(fopen("/usr/share/zoneinfo/\(name)", "rb"), "the package tzdata is needed")
        defer { fclose(file) }
        var contents = [UInt8](repeating: 0, count: 100_000)
        let count = fread(&contents, 1, contents.count, file)
        return try TimeZoneRules(name: name, contents: Array(contents[..<count]))
    }

    /// A zone file without a list of changes.
    static func file(rule: String) -> [UInt8] {
        let counts: [UInt8] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4]
        let header = Array("TZif2".utf8) + [UInt8](repeating: 0, count: 15) + counts
        let block: [UInt8] = [0, 0, 0, 0, 0, 0] + Array("LMT\0".utf8)
        return header + block + header + block + Array("\n\(rule)\n".utf8)
    }

    static func rule(_ rule: String) throws -> TimeZoneRules {
        try TimeZoneRules(name: "Test/Rule", contents: file(rule: rule))
    }
}

struct TimeZoneTests {
    @Test(arguments: [
        "Europe/Berlin", "America/New_York", "Europe/Dublin", "America/Nuuk", "Australia/Lord_Howe", "Asia/Kathmandu",
        "Pacific/Apia", "Africa/Casablanca", "America/St_Johns", "Asia/Gaza", "Antarctica/Troll", "Etc/GMT+5", "UTC",
    ])
    func `offsets agree with the C library, also long after the last listed change`(_ name: String) throws {
        let zone = try Zones.system(name)
        var random = SystemRandomNumberGenerator()
        let instants = (0..<300).map { _ in Int.random(in: -1_000_000_000..<7_000_000_000, using: &random) }
        for instant in instants {
            #expect(zone.offset(at: Timestamp(milliseconds: Int64(instant) * 1000)) == Self.offset(instant, name))
        }
    }

    @Test func `H59: the time zone of the process does not move schedules, not even where clocks change`() throws {
        let pattern = try CronExpression("0 30 2 * * *")
        let start = try #require(Timestamp("2024-03-09T12:00:00Z"))
        let found = clock.withLock { _ in
            setenv("TZ", "America/New_York", 1)
            tzset()
            return pattern.next(after: start).flatMap { pattern.next(after: $0) }
        }
        #expect(found?.iso8601 == "2024-03-11T02:30:00.000Z")
    }

    /// What the C library says; the variable is read anew for each answer, and nobody else in these tests uses it.
    private static func offset(_ instant: Int, _ zone: String) -> Int {
        clock.withLock { _ in
            setenv("TZ", ":/usr/share/zoneinfo/\(zone)", 1)
            tzset()
            var time = time_t(instant)
            var parts = tm()
            localtime_r(&time, &parts)
            return parts.tm_gmtoff
        }
    }

    @Test(arguments: [
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2050-03-27T00:59:59Z", 3600),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2050-03-27T01:00:00Z", 7200),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2050-10-30T00:59:59Z", 7200),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "2050-10-30T01:00:00Z", 3600),
        ("IST-1GMT0,M10.5.0,M3.5.0/1", "2050-07-01T00:00:00Z", 3600),
        ("IST-1GMT0,M10.5.0,M3.5.0/1", "2050-01-01T00:00:00Z", 0),
        ("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "2050-03-27T00:59:59Z", -7200),
        ("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "2050-03-27T01:00:00Z", -3600),
        ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", "2050-01-01T00:00:00Z", 39_600),
        ("XXX3EDT4,0/0,J365/23", "2051-01-01T03:00:00Z", -14_400),
        ("AAA0BBB,J60,J61", "2048-03-01T12:00:00Z", 3600),
        ("AAA0BBB,59,60", "2048-02-29T12:00:00Z", 3600),
        ("<+03>-3", "2050-01-01T00:00:00Z", 10_800),
    ])
    func `the rule at the end of a zone file holds for ever`(_ rule: String, _ instant: String, _ offset: Int) throws {
        #expect(try Zones.rule(rule).offset(at: #require(Timestamp(instant))) == offset)
    }

    @Test(arguments: [
        "C-1", "CET", "CET-1CEST", "CET-1CEST,M3.5.0", "CET-1CEST,M13.5.0,M10.5.0", "CET-1CEST,M3.6.0,M10.5.0",
        "CET-1CEST,M3.5.7,M10.5.0", "CET-1CEST,J0,J1", "CET-1,,", "<+03-3", "CET-1CEST,M3.5.0,M10.5.0/3x", "CET-200",
    ])
    func `rules that nobody can read are refused`(_ rule: String) {
        #expect(throws: TimeZoneError.self) { try Zones.rule(rule) }
    }

    @Test func `damaged zone files are refused and never read past their end`() throws {
        let whole = Zones.file(rule: "CET-1CEST,M3.5.0,M10.5.0/3")
        for length in 0..<whole.count {
            #expect(throws: TimeZoneError.self) { try TimeZoneRules(name: "X", contents: Array(whole[..<length])) }
        }
        var random = SystemRandomNumberGenerator()
        for _ in 0..<2000 {
            var damaged = whole
            for _ in 0..<3 {
                damaged[.random(in: 0..<damaged.count, using: &random)] = .random(in: 0...255, using: &random)
            }
            _ = try? TimeZoneRules(name: "X", contents: damaged).offset(at: Timestamp(milliseconds: 0))
        }
    }

    @Test(arguments: [
        ("Europe/Berlin", true), ("America/Argentina/Buenos_Aires", true), ("Etc/GMT+5", true), ("UTC", true),
        ("", false),
        ("../etc/passwd", false), ("/Europe/Berlin", false), ("Europe//Berlin", false), ("Europe/", false),
        ("Europe/Ber lin", false), (".", false), ("Europe/Berl\u{0}in", false),
    ])
    func `names of zones stay within the directory of zones`(_ name: String, _ isName: Bool) {
        #expect(TimeZoneRules.isName(name) == isName)
    }
}

private let clock = Mutex(())
