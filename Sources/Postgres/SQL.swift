// SPDX-License-Identifier: MPL-2.0

public import JSON
public import Schedules

/// A statement with its values.
///
/// Every interpolated value becomes a numbered parameter; only `\(unsafe:)` puts text into the statement itself, for
/// identifiers of our own. Interpolating or adding another `SQL` splices it in with its values.
public struct SQL: Sendable, ExpressibleByStringInterpolation {
    /// The statement as the server sees it, with `$1`, `$2` … in place of values.
    public private(set) var text: String
    /// All values in text form, each followed by a zero byte.
    private(set) var bytes: [UInt8] = []
    /// Where each value starts in ``bytes``; -1 stands for null.
    private(set) var offsets: [Int] = []
    /// Where each placeholder starts in the UTF-8 of ``text``.
    private var placeholders: [Int] = []

    /// Creates a statement without values.
    public init(stringLiteral value: String) {
        text = value
    }

    /// Creates a statement from a literal with values.
    public init(stringInterpolation: Interpolation) {
        self = stringInterpolation.sql
    }

    /// Creates a statement from text made at run time: never from anything that came from outside.
    public init(unsafe text: String) {
        self.text = text
    }

    /// Joins two statements; the second one's values are numbered after the first one's.
    public static func + (first: SQL, second: SQL) -> SQL {
        var result = first
        result.append(second)
        return result
    }

    /// Adds another statement at the end.
    public static func += (first: inout SQL, second: SQL) {
        first.append(second)
    }

    fileprivate mutating func append(_ other: SQL) {
        guard !offsets.isEmpty, !other.offsets.isEmpty else {
            let start = text.utf8.count
            text += other.text
            placeholders += other.placeholders.map { $0 + start }
            if offsets.isEmpty {
                bytes = other.bytes
                offsets = other.offsets
            }
            return
        }
        let utf8 = Array(other.text.utf8)
        let base = bytes.count
        var position = 0
        for (index, start) in other.placeholders.enumerated() {
            text += String(decoding: utf8[position..<start], as: UTF8.self)
            placeholders.append(text.utf8.count)
            text += "$\(offsets.count + index + 1)"
            position = start + 1 + String(index + 1).utf8.count
        }
        text += String(decoding: utf8[position...], as: UTF8.self)
        offsets += other.offsets.map { $0 < 0 ? -1 : $0 + base }
        bytes += other.bytes
    }

    fileprivate mutating func append(literal: String) {
        text += literal
    }

    fileprivate mutating func bindNull() {
        placeholder()
        offsets.append(-1)
    }

    fileprivate mutating func bind(_ value: String) {
        placeholder()
        offsets.append(bytes.count)
        // A zero byte cannot be stored in text; the server would refuse what follows it, so it never gets that far.
        if value.utf8.contains(0) {
            bytes.append(contentsOf: value.utf8.filter { $0 != 0 })
        } else {
            bytes.append(contentsOf: value.utf8)
        }
        bytes.append(0)
    }

    fileprivate mutating func bind(text value: [UInt8]) {
        placeholder()
        offsets.append(bytes.count)
        bytes.append(contentsOf: value)
        bytes.append(0)
    }

    private mutating func placeholder() {
        placeholders.append(text.utf8.count)
        text += "$"
        text += String(offsets.count + 1)
    }
}

extension SQL {
    /// Collects the pieces of a literal with values.
    public struct Interpolation: StringInterpolationProtocol {
        fileprivate var sql: SQL

        /// Prepares for the expected size.
        public init(literalCapacity: Int, interpolationCount: Int) {
            sql = SQL(unsafe: "")
            sql.text.reserveCapacity(literalCapacity + interpolationCount * 3)
        }

        /// Adds text of the statement.
        public mutating func appendLiteral(_ literal: String) {
            sql.append(literal: literal)
        }

        /// Adds text that the caller vouches for, such as a schema's name.
        public mutating func appendInterpolation(unsafe text: String) {
            sql.append(literal: text)
        }

        /// Splices in another statement with its values.
        public mutating func appendInterpolation(_ other: SQL) {
            sql.append(other)
        }

        /// Binds a value.
        public mutating func appendInterpolation(_ value: some PostgresBindable) {
            switch value.postgresText {
            case .text(let text): sql.bind(text)
            case .bytes(let bytes): sql.bind(text: bytes)
            }
        }

        /// Binds a value or null.
        public mutating func appendInterpolation(_ value: (some PostgresBindable)?) {
            if let value { appendInterpolation(value) } else { sql.bindNull() }
        }

        /// Binds JSON text as it is, without parsing it.
        public mutating func appendInterpolation(jsonText: [UInt8]) {
            sql.bind(text: jsonText)
        }
    }
}

/// A value in the text form in which the server reads it.
public enum PostgresText: Sendable {
    /// Text without zero bytes.
    case text(String)
    /// UTF-8 without zero bytes.
    case bytes([UInt8])
}

/// A type whose values can be interpolated into ``SQL``.
public protocol PostgresBindable: Sendable {
    /// The value as text.
    var postgresText: PostgresText { get }
}

extension String: PostgresBindable {
    /// The text itself.
    public var postgresText: PostgresText { .text(self) }
}

extension Substring: PostgresBindable {
    /// The text itself.
    public var postgresText: PostgresText { .text(String(self)) }
}

extension Int: PostgresBindable {
    /// Decimal digits.
    public var postgresText: PostgresText { .text(String(self)) }
}

extension Int64: PostgresBindable {
    /// Decimal digits.
    public var postgresText: PostgresText { .text(String(self)) }
}

extension Int32: PostgresBindable {
    /// Decimal digits.
    public var postgresText: PostgresText { .text(String(self)) }
}

extension Double: PostgresBindable {
    /// The shortest digits that give the same number.
    public var postgresText: PostgresText {
        .text(isNaN ? "NaN" : isInfinite ? (self < 0 ? "-Infinity" : "Infinity") : description)
    }
}

extension Bool: PostgresBindable {
    /// `t` or `f`.
    public var postgresText: PostgresText { .text(self ? "t" : "f") }
}

extension JSONValue: PostgresBindable {
    /// Compact JSON.
    public var postgresText: PostgresText { .bytes(bytes()) }
}

extension Timestamp: PostgresBindable {
    /// ISO 8601 in UTC with milliseconds.
    ///
    /// What is outside the years 1 to 9999 becomes the first or the last moment of those: PostgreSQL reads no others.
    public var postgresText: PostgresText { .text(storable.iso8601) }

    fileprivate var storable: Timestamp {
        let years: ClosedRange<Int64> = -62_135_596_800_000...253_402_300_799_999
        return Timestamp(milliseconds: min(max(milliseconds, years.lowerBound), years.upperBound))
    }
}

extension [UInt8]: PostgresBindable {
    /// A `bytea` in hexadecimal.
    public var postgresText: PostgresText {
        var text: [UInt8] = [0x5C, 0x78]
        text.reserveCapacity(2 + 2 * count)
        for byte in self {
            text.append(Hexadecimal.digits[Int(byte >> 4)])
            text.append(Hexadecimal.digits[Int(byte & 15)])
        }
        return .bytes(text)
    }
}

/// The text form of an array of texts; nil is a null.
private func arrayText(_ elements: [String?]) -> [UInt8] {
    var text = [UInt8(ascii: "{")]
    for element in elements {
        if text.count > 1 { text.append(UInt8(ascii: ",")) }
        guard let element else {
            text.append(contentsOf: "NULL".utf8)
            continue
        }
        text.append(UInt8(ascii: "\""))
        for byte in element.utf8 where byte != 0 {
            if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") { text.append(UInt8(ascii: "\\")) }
            text.append(byte)
        }
        text.append(UInt8(ascii: "\""))
    }
    text.append(UInt8(ascii: "}"))
    return text
}

extension SQL.Interpolation {
    /// Binds a `text[]`.
    public mutating func appendInterpolation(_ values: [String]) {
        sql.bind(text: arrayText(values))
    }

    /// Binds a `text[]` with nulls in it.
    public mutating func appendInterpolation(_ values: [String?]) {
        sql.bind(text: arrayText(values))
    }

    /// Binds a `text[]` or null.
    public mutating func appendInterpolation(_ values: [String]?) {
        if let values { appendInterpolation(values) } else { sql.bindNull() }
    }

    /// Binds a `text[]` whose elements are the texts of arrays, for `unnest` and a cast of each: SQL has no lists of lists.
    public mutating func appendInterpolation(lists values: [[String]]) {
        sql.bind(text: arrayText(values.map { String(decoding: arrayText($0), as: UTF8.self) }))
    }

    /// Binds a `bigint[]`.
    public mutating func appendInterpolation(_ values: [Int]) {
        sql.bind("{" + values.map(String.init).joined(separator: ",") + "}")
    }

    /// Binds a `bigint[]` from 64-bit numbers.
    public mutating func appendInterpolation(_ values: [Int64]) {
        sql.bind("{" + values.map(String.init).joined(separator: ",") + "}")
    }

    /// Binds a `jsonb[]`, each element as text.
    public mutating func appendInterpolation(_ values: [JSONValue]) {
        sql.bind(text: arrayText(values.map { $0.text() }))
    }

    /// Binds a `timestamptz[]`.
    public mutating func appendInterpolation(_ values: [Timestamp]) {
        sql.bind(text: arrayText(values.map(\.storable.iso8601)))
    }

    /// Binds a `boolean[]`.
    public mutating func appendInterpolation(_ values: [Bool]) {
        sql.bind("{" + values.map { $0 ? "t" : "f" }.joined(separator: ",") + "}")
    }
}

/// Hexadecimal digits as bytes.
enum Hexadecimal {
    /// `0` to `f`.
    static let digits = Array("0123456789abcdef".utf8)

    /// The value of a digit.
    static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x61...0x66: digit - 0x57
        case 0x41...0x46: digit - 0x37
        default: nil
        }
    }
}
