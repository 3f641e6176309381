// SPDX-License-Identifier: MPL-2.0

/// The yearly rule of a time zone as POSIX writes it, such as `CET-1CEST,M3.5.0,M10.5.0/3`.
///
/// Zone files end with such a rule; it holds for ever after the last change they list.
struct PosixRule: Sendable, Hashable {
    /// When clocks change within a year.
    struct Change: Sendable, Hashable {
        enum Day: Sendable, Hashable {
            /// A weekday (0 for Sunday) of the first to fourth, or with 5 the last, week of a month.
            case weekday(month: Int, week: Int, weekday: Int)
            /// A day from 1 to 365; the 29th of February is never counted.
            case julian(Int)
            /// A day from 0 to 365, leap days counted.
            case ordinal(Int)
        }

        let day: Day
        /// Seconds after midnight by the clock that is about to change; may be negative or beyond a day.
        let time: Int

        /// The second at which the change comes in a year, counted in local time.
        func wall(inYear year: Int) -> Int {
            dayNumber(inYear: year) * 86_400 + time
        }

        private func dayNumber(inYear year: Int) -> Int {
            let newYear = CalendarDate(year: year, month: 1, day: 1).dayNumber
            switch day {
            case .ordinal(let number):
                return newYear + number
            case .julian(let number):
                let isLeap = CalendarDate.length(ofMonth: 2, year: year) == 29
                return newYear + number - 1 + (isLeap && number >= 60 ? 1 : 0)
            case .weekday(let month, let week, let weekday):
                let first = CalendarDate(year: year, month: month, day: 1)
                var day = 1 + (weekday - first.weekday + 7) % 7 + (week - 1) * 7
                while day > CalendarDate.length(ofMonth: month, year: year) { day -= 7 }
                return first.dayNumber + day - 1
            }
        }
    }

    /// Summer time: its offset, and when it begins and ends.
    struct Summer: Sendable, Hashable {
        let offset: Int
        let start: Change
        let end: Change
    }

    /// Seconds east of Greenwich in standard time.
    let offset: Int
    let summer: Summer?

    /// Reads a rule; nil if it is malformed.
    init?(_ text: String) {
        var reader = Reader(rest: text.utf8[...])
        guard reader.skipName(), let offset = reader.offset() else { return nil }
        self.offset = offset
        if reader.rest.isEmpty {
            summer = nil
            return
        }
        guard reader.skipName() else { return nil }
        var summerOffset = offset + 3600
        if reader.rest.first != UInt8(ascii: ",") {
            guard let given = reader.offset() else { return nil }
            summerOffset = given
        }
        guard let start = reader.change(), let end = reader.change(), reader.rest.isEmpty else { return nil }
        summer = Summer(offset: summerOffset, start: start, end: end)
    }

    /// The changes of a year in order: the second (UTC) from which an offset holds.
    func changes(inYear year: Int) -> [(second: Int, offset: Int)] {
        guard let summer else { return [] }
        let start = (second: summer.start.wall(inYear: year) - offset, offset: summer.offset)
        let end = (second: summer.end.wall(inYear: year) - summer.offset, offset: offset)
        return start.second < end.second ? [start, end] : [end, start]
    }
}

/// Takes a rule apart, byte by byte.
private struct Reader {
    var rest: Substring.UTF8View

    mutating func skipName() -> Bool {
        if take("<") {
            guard let close = rest.firstIndex(of: UInt8(ascii: ">")) else { return false }
            rest = rest[rest.index(after: close)...]
            return true
        }
        let name = rest.prefix { (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) }
        rest = rest[name.endIndex...]
        return name.count >= 3
    }

    /// POSIX counts hours west of Greenwich as positive.
    mutating func offset() -> Int? {
        time().map { -$0 }
    }

    /// `[+-]hours[:minutes[:seconds]]` in seconds.
    mutating func time() -> Int? {
        let isNegative = take("-")
        if !isNegative { _ = take("+") }
        guard let hours = number(upTo: 167) else { return nil }
        var seconds = hours * 3600
        for unit in [60, 1] where take(":") {
            guard let part = number(upTo: 59) else { return nil }
            seconds += part * unit
        }
        return isNegative ? -seconds : seconds
    }

    mutating func change() -> PosixRule.Change? {
        guard take(","), let day = day() else { return nil }
        guard take("/") else { return PosixRule.Change(day: day, time: 7200) }
        return time().map { PosixRule.Change(day: day, time: $0) }
    }

    private mutating func day() -> PosixRule.Change.Day? {
        if take("J") { return number(upTo: 365).flatMap { $0 > 0 ? .julian($0) : nil } }
        guard take("M") else { return number(upTo: 365).map { .ordinal($0) } }
        guard let month = number(upTo: 12), month > 0, take("."), let week = number(upTo: 5), week > 0, take("."),
            let weekday = number(upTo: 6)
        else { return nil }
        return .weekday(month: month, week: week, weekday: weekday)
    }

    private mutating func number(upTo limit: Int) -> Int? {
        let digits = rest.prefix { (0x30...0x39).contains($0) }
        guard 1...3 ~= digits.count else { return nil }
        rest = rest[digits.endIndex...]
        let value = digits.reduce(0) { $0 * 10 + Int($1 - 0x30) }
        return value <= limit ? value : nil
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard rest.first == UInt8(ascii: character) else { return false }
        rest = rest.dropFirst()
        return true
    }
}
