// SPDX-License-Identifier: MPL-2.0

/// One of the six positions of a cron pattern: its range and its names.
struct CronField {
    static let second = CronField(range: 0...59)
    static let minute = CronField(range: 0...59)
    static let hour = CronField(range: 0...23)
    static let dayOfMonth = CronField(range: 1...31, allowsLastDay: true)
    static let month = CronField(
        range: 1...12,
        names: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
        firstName: 1
    )
    static let dayOfWeek = CronField(
        range: 0...7,
        names: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
        allowsLastWeekday: true
    )

    let range: ClosedRange<Int>
    var names: [String] = []
    var firstName = 0
    var allowsLastDay = false
    var allowsLastWeekday = false

    /// What a field's text selects.
    struct Selection: Hashable {
        /// The bit of every selected value.
        var values: UInt64 = 0
        /// The field was neither `*` nor `?`.
        var isRestricted = true
        /// Days of month: also the last one.
        var includesLastDay = false
        /// Days of week: the bits of those meant only in their last occurrence of a month.
        var lastWeekdays: UInt64 = 0
        /// Days of week: which occurrence in the month is meant.
        var occurrence: Int?

        func contains(_ value: Int) -> Bool { values >> UInt64(value) & 1 == 1 }

        /// The smallest selected value from `value` on.
        func first(from value: Int) -> Int? {
            let rest = values >> UInt64(value)
            return rest == 0 ? nil : value + rest.trailingZeroBitCount
        }
    }

    func selection(_ text: String) throws(CronError) -> Selection {
        var selection = Selection()
        selection.isRestricted = text != "*" && text != "?"
        var body = text
        if allowsLastWeekday, let hash = text.firstIndex(of: "#") {
            guard !text.contains(where: { ",-/".contains($0) }) else {
                throw CronError("Constraint error, invalid dayOfWeek `#` and one of `,`, `-`, `/` are incompatible")
            }
            let occurrence = Int(text[text.index(after: hash)...]) ?? 0
            guard 1...5 ~= occurrence else {
                throw CronError("Constraint error, invalid dayOfWeek occurrence number (#)")
            }
            selection.occurrence = occurrence
            body = String(text[..<hash])
        }
        var seen: UInt64 = 0
        for part in body.split(separator: ",", omittingEmptySubsequences: false) {
            for value in try values(of: String(part), into: &selection) {
                guard seen >> UInt64(value) & 1 == 0 else {
                    throw CronError("Validation error, duplicate values found: \(value)")
                }
                seen |= 1 << UInt64(value)
            }
        }
        selection.values = allowsLastWeekday ? Self.foldingSunday(seen) : seen
        return selection
    }

    /// Sunday may be written as 0 and as 7.
    private static func foldingSunday(_ values: UInt64) -> UInt64 {
        values & 0x7F | values >> 7 & 1
    }

    private func values(of part: String, into selection: inout Selection) throws(CronError) -> [Int] {
        if allowsLastDay, part == "L" || part == "l" {
            guard !selection.includesLastDay else { throw CronError("Validation error, duplicate values found: L") }
            selection.includesLastDay = true
            return []
        }
        if allowsLastWeekday, part.count > 1, part.last == "L" || part.last == "l" {
            let day = try number(String(part.dropLast()), in: part)
            let bit: UInt64 = 1 << UInt64(day % 7)
            guard selection.lastWeekdays & bit == 0 else {
                throw CronError("Validation error, duplicate values found: \(part)")
            }
            selection.lastWeekdays |= bit
            return []
        }
        let pieces = part.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard pieces.count <= 2 else { throw CronError("Invalid repeat: \(part)") }
        guard pieces.count == 2 else { return Array(try span(part, in: part, isOpen: false)) }
        let span = try span(pieces[0], in: part, isOpen: true)
        guard pieces[1].utf8.allSatisfy({ 0x30...0x39 ~= $0 }), let step = Int(pieces[1]), step > 0 else {
            throw CronError("Constraint error, cannot repeat at every \(pieces[1]) time.")
        }
        return Array(stride(from: span.lowerBound, through: span.upperBound, by: step))
    }

    /// Reads `*`, `a` or `a-b`; with a step behind it, `a` alone means everything from there on.
    private func span(_ text: String, in part: String, isOpen: Bool) throws(CronError) -> ClosedRange<Int> {
        if text == "*" || text == "?" { return range }
        let ends = text.split(separator: "-", omittingEmptySubsequences: false).map(String.init)
        guard ends.count <= 2 else { throw CronError("Invalid range: \(part)") }
        let first = try number(ends[0], in: part)
        guard ends.count == 2 else { return first...(isOpen ? range.upperBound : first) }
        let last = try number(ends[1], in: part)
        guard first <= last else { throw CronError("Invalid range: \(text), min(\(first)) > max(\(last))") }
        return first...last
    }

    private func number(_ text: String, in part: String) throws(CronError) -> Int {
        if let index = names.firstIndex(of: text.lowercased()) { return index + firstName }
        guard !text.isEmpty, text.utf8.allSatisfy({ 0x30...0x39 ~= $0 }) else {
            throw CronError("Invalid characters, got value: \(part)")
        }
        guard let value = Int(text), range.contains(value) else {
            throw CronError(
                "Constraint error, got value \(text) expected range \(range.lowerBound)-\(range.upperBound)"
            )
        }
        return value
    }
}
