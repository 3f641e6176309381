// SPDX-License-Identifier: MPL-2.0

/// What the clocks of a place show, at any time: the contents of a zone file.
public struct TimeZoneRules: Sendable, Hashable {
    /// A stretch of time with one distance to UTC, from `start` up to but not including `end`, in seconds since 1970.
    struct Span: Hashable {
        var start = Int.min
        var end = Int.max
        /// Seconds to add to UTC.
        let offset: Int
    }

    /// Universal time.
    public static let utc = TimeZoneRules(name: "UTC", transitions: [], offsets: [], first: 0, rule: nil)

    /// The zone's name, such as `Europe/Berlin`.
    public let name: String
    private let transitions: [Int]
    /// The offset that begins with each transition.
    private let offsets: [Int]
    private let first: Int
    private let rule: PosixRule?

    private init(name: String, transitions: [Int], offsets: [Int], first: Int, rule: PosixRule?) {
        self.name = name
        self.transitions = transitions
        self.offsets = offsets
        self.first = first
        self.rule = rule
    }

    /// Reads the contents of a zone file (TZif, any version).
    public init(name: String, contents: [UInt8]) throws(TimeZoneError) {
        var reader = ZoneFileReader(bytes: contents)
        let file = try reader.read()
        self.init(
            name: name,
            transitions: file.transitions,
            offsets: file.offsets,
            first: file.first,
            rule: file.rule
        )
    }

    /// Whether a text has the form of a zone's name, and names nothing outside a directory of zones.
    public static func isName(_ text: String) -> Bool {
        let parts = text.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        return (1...100).contains(text.utf8.count)
            && parts.allSatisfy { part in
                guard let first = part.first else { return false }
                return isLetter(first)
                    && part.allSatisfy { isLetter($0) || (0x30...0x39).contains($0) || "_+-".utf8.contains($0) }
            }
    }

    private static func isLetter(_ byte: UInt8) -> Bool {
        (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
    }

    /// Seconds to add to UTC at an instant.
    public func offset(at instant: Timestamp) -> Int {
        span(at: Int(instant.milliseconds).dividedDown(by: 1000)).offset
    }

    // MARK: - Spans

    /// The span that holds a second.
    func span(at second: Int) -> Span {
        if let last = transitions.last, second < last {
            var low = 0
            var high = transitions.count
            while low < high {
                let middle = (low + high) / 2
                if transitions[middle] <= second { low = middle + 1 } else { high = middle }
            }
            guard low > 0 else { return Span(end: transitions[0], offset: first) }
            return Span(start: transitions[low - 1], end: transitions[low], offset: offsets[low - 1])
        }
        let start = transitions.last ?? .min
        guard let rule else { return Span(start: start, offset: offsets.last ?? first) }
        guard rule.summer != nil else { return Span(start: start, offset: rule.offset) }
        let year = CalendarDate(dayNumber: second.dividedDown(by: 86_400)).year
        var span = Span(start: start, offset: rule.offset)
        for change in (year - 1...year + 1).flatMap(rule.changes(inYear:)) {
            if change.second > second {
                span.end = change.second
                break
            }
            span = Span(start: max(start, change.second), offset: change.offset)
        }
        return span
    }

    /// The first instant at which the clocks show a time; if they skip it, the instant at which they do.
    func firstInstant(ofWall wall: Int) -> Int {
        // No place is farther from Greenwich than this.
        var span = span(at: wall - 26 * 3600)
        while true {
            if span.start > .min, wall < span.start + span.offset { return span.start }
            if span.end == .max || wall < span.end + span.offset { return wall - span.offset }
            span = self.span(at: span.end)
        }
    }
}

/// Why the rules of a time zone cannot be had.
public struct TimeZoneError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The reason.
    public let description: String

    /// An error with its reason.
    public init(_ description: String) {
        self.description = description
    }
}

/// Reads the binary form of zone files.
private struct ZoneFileReader {
    struct File {
        var transitions: [Int] = []
        var offsets: [Int] = []
        var first = 0
        var rule: PosixRule?
    }

    private struct Counts {
        let universal, standard, leaps, transitions, types, letters: Int

        func size(ofTime bytes: Int) -> Int {
            transitions * (bytes + 1) + types * 6 + letters + leaps * (bytes + 4) + standard + universal
        }
    }

    private let bytes: [UInt8]
    private var position = 0

    init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    mutating func read() throws(TimeZoneError) -> File {
        var (version, counts) = try header()
        guard version >= UInt8(ascii: "2") else { return try block(counts, timeSize: 4) }
        // Newer files repeat everything with 64 bits after a block for old readers, and add the rule for the future.
        try skip(counts.size(ofTime: 4))
        (version, counts) = try header()
        var file = try block(counts, timeSize: 8)
        file.rule = try footer()
        return file
    }

    private mutating func header() throws(TimeZoneError) -> (version: UInt8, counts: Counts) {
        guard bytes.count - position >= 44, bytes[position..<position + 4].elementsEqual("TZif".utf8) else {
            throw TimeZoneError("not a zone file")
        }
        let version = bytes[position + 4]
        position += 20
        var numbers: [Int] = []
        for _ in 0..<6 { numbers.append(try integer(4)) }
        guard numbers.allSatisfy({ (0...100_000).contains($0) }), numbers[4] > 0 else {
            throw TimeZoneError("the zone file has impossible counts")
        }
        let counts = Counts(
            universal: numbers[0],
            standard: numbers[1],
            leaps: numbers[2],
            transitions: numbers[3],
            types: numbers[4],
            letters: numbers[5]
        )
        return (version, counts)
    }

    private mutating func block(_ counts: Counts, timeSize: Int) throws(TimeZoneError) -> File {
        guard counts.leaps == 0 else { throw TimeZoneError("the zone counts leap seconds") }
        guard bytes.count - position >= counts.size(ofTime: timeSize) else {
            throw TimeZoneError("the zone file is cut short")
        }
        var file = File()
        for _ in 0..<counts.transitions { file.transitions.append(try integer(timeSize)) }
        var types: [Int] = []
        for _ in 0..<counts.transitions { types.append(try integer(1) & 0xFF) }
        var offsets: [Int] = []
        for _ in 0..<counts.types {
            offsets.append(try integer(4))
            try skip(2)
        }
        guard types.allSatisfy({ $0 < offsets.count }), offsets.allSatisfy({ abs($0) < 26 * 3600 }),
            zip(file.transitions, file.transitions.dropFirst()).allSatisfy({ $0 < $1 })
        else { throw TimeZoneError("the zone file contradicts itself") }
        file.offsets = types.map { offsets[$0] }
        file.first = offsets[0]
        try skip(counts.letters + counts.standard + counts.universal)
        return file
    }

    private mutating func footer() throws(TimeZoneError) -> PosixRule? {
        guard position < bytes.count, bytes[position] == 0x0A, let end = bytes[(position + 1)...].firstIndex(of: 0x0A)
        else { throw TimeZoneError("the zone file lacks its last line") }
        let text = String(decoding: bytes[(position + 1)..<end], as: UTF8.self)
        if text.isEmpty { return nil }
        guard let rule = PosixRule(text) else { throw TimeZoneError("the zone file ends with a rule nobody can read") }
        return rule
    }

    private mutating func skip(_ count: Int) throws(TimeZoneError) {
        guard bytes.count - position >= count else { throw TimeZoneError("the zone file is cut short") }
        position += count
    }

    /// A signed number, the most significant byte first.
    private mutating func integer(_ size: Int) throws(TimeZoneError) -> Int {
        guard bytes.count - position >= size else { throw TimeZoneError("the zone file is cut short") }
        var value: Int64 = Int64(Int8(bitPattern: bytes[position]))
        for byte in bytes[(position + 1)..<(position + size)] { value = value << 8 | Int64(byte) }
        position += size
        return Int(value)
    }
}
