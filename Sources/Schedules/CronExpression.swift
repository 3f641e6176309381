// SPDX-License-Identifier: MPL-2.0

/// A cron pattern of five or six fields: `[second] minute hour day-of-month month day-of-week`, in UTC or in the time of a place.
///
/// Days of month and days of week are alternatives when both are restricted, as in every cron.
public struct CronExpression: Sendable, Hashable {
    private static let macros = [
        "@yearly": "0 0 0 1 1 *", "@annually": "0 0 0 1 1 *", "@monthly": "0 0 0 1 * *", "@weekly": "0 0 0 * * 0",
        "@daily": "0 0 0 * * *", "@hourly": "0 0 * * * *", "@minutely": "0 * * * * *", "@secondly": "* * * * * *",
        "@weekdays": "0 0 0 * * 1-5", "@weekends": "0 0 0 * * 0,6",
    ]

    /// Every combination of month lengths and weekdays that can occur does so within this span.
    private static let horizonInDays = 50 * 366

    /// The pattern as it was written.
    public let text: String
    private let second: CronField.Selection
    private let minute: CronField.Selection
    private let hour: CronField.Selection
    private let dayOfMonth: CronField.Selection
    private let month: CronField.Selection
    private let dayOfWeek: CronField.Selection

    /// Reads a pattern or one of the macros such as `@daily`.
    public init(_ text: String) throws(CronError) {
        self.text = text
        var fields = Self.fields(of: text)
        if fields.count == 1, let macro = Self.macros[fields[0]] { fields = Self.fields(of: macro) }
        guard fields.count >= 5 else {
            throw CronError("Invalid cron expression, expected 5 or 6 fields, got \(fields.count)")
        }
        guard fields.count <= 6 else { throw CronError("Invalid cron expression, too many fields") }
        if fields.count == 5 { fields.insert("0", at: 0) }
        second = try CronField.second.selection(fields[0])
        minute = try CronField.minute.selection(fields[1])
        hour = try CronField.hour.selection(fields[2])
        dayOfMonth = try CronField.dayOfMonth.selection(fields[3])
        month = try CronField.month.selection(fields[4])
        dayOfWeek = try CronField.dayOfWeek.selection(fields[5])
        try checkDayExists()
    }

    private static func fields(of text: String) -> [String] {
        text.split { $0.isWhitespace }.map(String.init)
    }

    private func checkDayExists() throws(CronError) {
        guard month.values.nonzeroBitCount == 1, !dayOfWeek.isRestricted, !dayOfMonth.includesLastDay,
            let onlyMonth = month.first(from: 1), let firstDay = dayOfMonth.first(from: 1),
            firstDay > CalendarDate.length(ofMonth: onlyMonth, year: 2000)
        else { return }
        throw CronError("Invalid explicit day of month definition")
    }

    /// The first matching instant in UTC strictly after another, whole seconds; nil when there is none.
    public func next(after reference: Timestamp) -> Timestamp? {
        nextWall(after: reference.wholeSeconds).map(Timestamp.init(wholeSeconds:))
    }

    /// The first instant strictly after another at which the clocks of a place match; nil when there is none.
    ///
    /// When clocks change, patterns with any hour (`*`) follow elapsed time: they skip what the clocks skip and match
    /// repeated times twice. Patterns for certain hours match once a day instead: times that the clocks skip come when
    /// they do so, and of a repeated time the first counts.
    public func next(after reference: Timestamp, in zone: TimeZoneRules) -> Timestamp? {
        guard zone != .utc else { return next(after: reference) }
        let start = reference.wholeSeconds
        let found = hour.isRestricted ? nextOnceADay(after: start, zone) : nextElapsed(after: start, zone)
        return found.map(Timestamp.init(wholeSeconds:))
    }

    private func nextElapsed(after start: Int, _ zone: TimeZoneRules) -> Int? {
        var span = zone.span(at: start)
        var wall = start + span.offset
        while let candidate = nextWall(after: wall) {
            if span.end == .max || candidate - span.offset < span.end { return candidate - span.offset }
            span = zone.span(at: span.end)
            wall = span.start + span.offset - 1
        }
        return nil
    }

    private func nextOnceADay(after start: Int, _ zone: TimeZoneRules) -> Int? {
        let span = zone.span(at: start)
        var wall = start + span.offset
        if span.start > .min {
            // Times that the clocks showed before they were set back have had their turn.
            let shown = span.start + zone.span(at: span.start - 1).offset
            wall = max(wall, shown - 1)
        }
        while let candidate = nextWall(after: wall) {
            let instant = zone.firstInstant(ofWall: candidate)
            if instant > start { return instant }
            wall = candidate
        }
        return nil
    }

    /// The first matching time strictly after another, both in seconds of a clock that never changes.
    private func nextWall(after reference: Int) -> Int? {
        let start = reference + 1
        let firstDay = start.dividedDown(by: 86_400)
        var earliest = start - firstDay * 86_400
        var dayNumber = firstDay
        while dayNumber <= firstDay + Self.horizonInDays {
            let date = CalendarDate(dayNumber: dayNumber)
            guard month.contains(date.month) else {
                dayNumber += CalendarDate.length(ofMonth: date.month, year: date.year) - date.day + 1
                earliest = 0
                continue
            }
            if matchesDay(date), let time = timeOfDay(from: earliest) { return dayNumber * 86_400 + time }
            dayNumber += 1
            earliest = 0
        }
        return nil
    }

    private func matchesDay(_ date: CalendarDate) -> Bool {
        switch (dayOfMonth.isRestricted, dayOfWeek.isRestricted) {
        case (false, false): true
        case (true, false): matchesDayOfMonth(date)
        case (false, true): matchesDayOfWeek(date)
        case (true, true): matchesDayOfMonth(date) || matchesDayOfWeek(date)
        }
    }

    private func matchesDayOfMonth(_ date: CalendarDate) -> Bool {
        if dayOfMonth.contains(date.day) { return true }
        return dayOfMonth.includesLastDay && date.day == CalendarDate.length(ofMonth: date.month, year: date.year)
    }

    private func matchesDayOfWeek(_ date: CalendarDate) -> Bool {
        let weekday = date.weekday
        if dayOfWeek.lastWeekdays >> UInt64(weekday) & 1 == 1,
            date.day + 7 > CalendarDate.length(ofMonth: date.month, year: date.year)
        {
            return true
        }
        guard dayOfWeek.contains(weekday) else { return false }
        return dayOfWeek.occurrence.map { $0 == (date.day + 6) / 7 } ?? true
    }

    /// The first matching second of a day from another on.
    private func timeOfDay(from earliest: Int) -> Int? {
        let (startHour, startMinute, startSecond) = (earliest / 3600, earliest / 60 % 60, earliest % 60)
        guard let firstHour = hour.first(from: startHour) else { return nil }
        if firstHour == startHour, let firstMinute = minute.first(from: startMinute) {
            if firstMinute == startMinute, let firstSecond = second.first(from: startSecond) {
                return firstHour * 3600 + firstMinute * 60 + firstSecond
            }
            let laterMinute = firstMinute > startMinute ? firstMinute : minute.first(from: startMinute + 1)
            if let laterMinute { return firstHour * 3600 + laterMinute * 60 + (second.first(from: 0) ?? 0) }
        }
        let laterHour = firstHour > startHour ? firstHour : hour.first(from: startHour + 1)
        return laterHour.map { $0 * 3600 + (minute.first(from: 0) ?? 0) * 60 + (second.first(from: 0) ?? 0) }
    }
}

/// Several patterns together.
public enum Schedule {
    /// The earliest next instant of any pattern; ``Timestamp/farFuture`` without patterns, nil when none ever matches.
    public static func next(_ patterns: [CronExpression], after reference: Timestamp) -> Timestamp? {
        patterns.isEmpty ? .farFuture : patterns.compactMap { $0.next(after: reference) }.min()
    }
}

extension Timestamp {
    /// An instant at a whole second since 1970.
    fileprivate init(wholeSeconds: Int) {
        self.init(milliseconds: Int64(wholeSeconds) * 1000)
    }

    /// Seconds since 1970, rounded down.
    fileprivate var wholeSeconds: Int { Int(milliseconds).dividedDown(by: 1000) }
}
