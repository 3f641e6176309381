// SPDX-License-Identifier: MPL-2.0

import CLibPQ
public import JSON
public import Schedules
import Synchronization

/// The names of an answer's columns.
struct ResultColumns: Sendable {
    let names: [String]
    /// Whether no name occurs twice.
    let areDistinct: Bool

    init(_ result: OpaquePointer) {
        names = (0..<PQnfields(result)).map { PQfname(result, $0).map { String(cString: $0) } ?? "" }
        areDistinct = Set(names).count == names.count
    }
}

/// The rows of one answer, shared by all of them.
final class PostgresResult: @unchecked Sendable {
    // SAFETY: a PGresult that is complete is only read from here on, and freed with the last row that refers to it.
    private let pointer: OpaquePointer
    private let distinct: Bool
    /// Where the column may be that is asked for next: most rows are read from left to right.
    private let next = Atomic(0)
    let columns: [String]

    /// Takes ownership of an answer.
    init(_ pointer: OpaquePointer, columns: ResultColumns) {
        self.pointer = pointer
        self.columns = columns.names
        distinct = columns.areDistinct
    }

    deinit {
        PQclear(pointer)
    }

    /// The place of a column; of several with that name the first.
    func index(of column: String) -> Int? {
        let start = distinct ? next.load(ordering: .relaxed) : 0
        for offset in columns.indices {
            let index = start + offset < columns.count ? start + offset : start + offset - columns.count
            if columns[index] == column {
                if distinct { next.store(index + 1 < columns.count ? index + 1 : 0, ordering: .relaxed) }
                return index
            }
        }
        return nil
    }

    /// All rows.
    var rows: [PostgresRow] {
        (0..<PQntuples(pointer)).map { PostgresRow(result: self, row: $0) }
    }

    /// The bytes of a value, valid during the closure; nil for null.
    func withValue<R, E: Error>(_ row: Int32, _ column: Int, _ body: (UnsafeRawBufferPointer?) throws(E) -> R) throws(E)
        -> R
    {
        let column = Int32(truncatingIfNeeded: column)
        guard PQgetisnull(pointer, row, column) == 0, let start = PQgetvalue(pointer, row, column) else {
            return try body(nil)
        }
        let count = Int(PQgetlength(pointer, row, column))
        let result = try body(UnsafeRawBufferPointer(start: start, count: count))
        withExtendedLifetime(self) {}
        return result
    }
}

/// A row of an answer; values are decoded when they are asked for.
public struct PostgresRow: Sendable {
    let result: PostgresResult
    let row: Int32

    /// The names of the columns.
    public var columns: [String] { result.columns }

    /// Whether a column is null.
    public func isNull(_ column: String) throws(PostgresError) -> Bool {
        result.withValue(row, try index(column)) { $0 == nil }
    }

    // MARK: By name

    /// Reads a text; any type can be read as the text the server shows.
    public func string(_ column: String) throws(PostgresError) -> String { try string(index(column)) }

    /// Reads a text or null.
    public func optionalString(_ column: String) throws(PostgresError) -> String? { try optionalString(index(column)) }

    /// Reads a whole number.
    public func int(_ column: String) throws(PostgresError) -> Int { try int(index(column)) }

    /// Reads a whole number or null.
    public func optionalInt(_ column: String) throws(PostgresError) -> Int? { try optionalInt(index(column)) }

    /// Reads a truth value.
    public func bool(_ column: String) throws(PostgresError) -> Bool { try bool(index(column)) }

    /// Reads a truth value or null.
    public func optionalBool(_ column: String) throws(PostgresError) -> Bool? { try optionalBool(index(column)) }

    /// Reads a number.
    public func double(_ column: String) throws(PostgresError) -> Double { try double(index(column)) }

    /// Reads a number or null.
    public func optionalDouble(_ column: String) throws(PostgresError) -> Double? { try optionalDouble(index(column)) }

    /// Reads and parses a JSON value; ``string(_:)-(String)`` gives its text unparsed.
    public func json(_ column: String) throws(PostgresError) -> JSONValue { try json(index(column)) }

    /// Reads and parses a JSON value or null.
    public func optionalJSON(_ column: String) throws(PostgresError) -> JSONValue? { try optionalJSON(index(column)) }

    /// Reads a moment.
    public func timestamp(_ column: String) throws(PostgresError) -> Timestamp { try timestamp(index(column)) }

    /// Reads a moment or null.
    public func optionalTimestamp(_ column: String) throws(PostgresError) -> Timestamp? {
        try optionalTimestamp(index(column))
    }

    /// Reads a `bytea`.
    public func bytes(_ column: String) throws(PostgresError) -> [UInt8] { try bytes(index(column)) }

    /// Reads a `bytea` or null.
    public func optionalBytes(_ column: String) throws(PostgresError) -> [UInt8]? { try optionalBytes(index(column)) }

    /// Reads a `text[]`.
    public func strings(_ column: String) throws(PostgresError) -> [String] { try strings(index(column)) }

    /// Reads the UTF-8 of any value, such as JSON to be passed on as it is.
    public func utf8(_ column: String) throws(PostgresError) -> [UInt8] { try utf8(index(column)) }

    // MARK: By position

    /// Reads a text by position.
    public func string(_ column: Int) throws(PostgresError) -> String { try present(column, optionalString(column)) }

    /// Reads a text or null by position.
    public func optionalString(_ column: Int) throws(PostgresError) -> String? {
        value(column) { String(decoding: $0, as: UTF8.self) }
    }

    /// Reads a whole number by position.
    public func int(_ column: Int) throws(PostgresError) -> Int { try present(column, optionalInt(column)) }

    /// Reads a whole number or null by position.
    public func optionalInt(_ column: Int) throws(PostgresError) -> Int? {
        try decoded(column, "whole number") { bytes in
            var rest = bytes[...]
            let isNegative = rest.first == 0x2D
            if isNegative { rest = rest.dropFirst() }
            guard !rest.isEmpty, rest.count <= 19 else { return nil }
            var number = 0
            for byte in rest {
                guard byte >= 0x30, byte <= 0x39 else { return nil }
                let (tens, overflowed) = number.multipliedReportingOverflow(by: 10)
                let digit = Int(byte - 0x30)
                let (next, overflowedToo) = tens.addingReportingOverflow(isNegative ? -digit : digit)
                guard !overflowed, !overflowedToo else { return nil }
                number = next
            }
            return number
        }
    }

    /// Reads a truth value by position.
    public func bool(_ column: Int) throws(PostgresError) -> Bool { try present(column, optionalBool(column)) }

    /// Reads a truth value or null by position.
    public func optionalBool(_ column: Int) throws(PostgresError) -> Bool? {
        try decoded(column, "truth value") { $0.count == 1 ? $0[0] == 0x74 : nil }
    }

    /// Reads a number by position.
    public func double(_ column: Int) throws(PostgresError) -> Double { try present(column, optionalDouble(column)) }

    /// Reads a number or null by position.
    public func optionalDouble(_ column: Int) throws(PostgresError) -> Double? {
        try decoded(column, "number") { Double(String(decoding: $0, as: UTF8.self)) }
    }

    /// Reads and parses a JSON value by position.
    public func json(_ column: Int) throws(PostgresError) -> JSONValue { try present(column, optionalJSON(column)) }

    /// Reads and parses a JSON value or null by position.
    public func optionalJSON(_ column: Int) throws(PostgresError) -> JSONValue? {
        try decoded(column, "JSON value") { try? JSONValue(parsing: [UInt8]($0)) }
    }

    /// Reads a moment by position.
    public func timestamp(_ column: Int) throws(PostgresError) -> Timestamp {
        try present(column, optionalTimestamp(column))
    }

    /// Reads a moment or null by position.
    public func optionalTimestamp(_ column: Int) throws(PostgresError) -> Timestamp? {
        try decoded(column, "moment") { bytes in
            var text = String(decoding: bytes, as: UTF8.self)
            // The server writes "+00" where RFC 3339 wants minutes too.
            if bytes.count > 3, bytes[bytes.count - 3] == 0x2B || bytes[bytes.count - 3] == 0x2D { text += ":00" }
            return Timestamp(text)
        }
    }

    /// Reads a `bytea` by position.
    public func bytes(_ column: Int) throws(PostgresError) -> [UInt8] { try present(column, optionalBytes(column)) }

    /// Reads a `bytea` or null by position.
    public func optionalBytes(_ column: Int) throws(PostgresError) -> [UInt8]? {
        try decoded(column, "bytea") { text in
            guard text.count >= 2, text.count % 2 == 0, text[0] == 0x5C, text[1] == 0x78 else { return nil }
            var bytes: [UInt8] = []
            bytes.reserveCapacity(text.count / 2 - 1)
            for index in stride(from: 2, to: text.count, by: 2) {
                guard let high = Hexadecimal.value(text[index]), let low = Hexadecimal.value(text[index + 1]) else {
                    return nil
                }
                bytes.append(high << 4 | low)
            }
            return bytes
        }
    }

    /// Reads a `text[]` by position; null elements are left out.
    public func strings(_ column: Int) throws(PostgresError) -> [String] {
        let strings = try decoded(column, "text[]") { ArrayText.parse($0) }
        return try present(column, strings)
    }

    /// Reads the UTF-8 of any value by position.
    public func utf8(_ column: Int) throws(PostgresError) -> [UInt8] {
        try present(column, value(column) { [UInt8]($0) })
    }

    // MARK: Helpers

    private func index(_ column: String) throws(PostgresError) -> Int {
        guard let index = result.index(of: column) else {
            throw PostgresError(.decoding, "the answer has no column \(column)")
        }
        return index
    }

    private func value<R>(_ column: Int, _ decode: (UnsafeRawBufferPointer) -> R) -> R? {
        result.withValue(row, column) { $0.map(decode) }
    }

    private func decoded<R>(
        _ column: Int,
        _ kind: String,
        _ decode: (UnsafeRawBufferPointer) -> R?
    ) throws(PostgresError) -> R? {
        try result.withValue(row, column) { (bytes) throws(PostgresError) -> R? in
            guard let bytes else { return nil }
            guard let value = decode(bytes) else {
                throw PostgresError(.decoding, "column \(name(column)) does not hold a \(kind)")
            }
            return value
        }
    }

    private func present<R>(_ column: Int, _ value: R?) throws(PostgresError) -> R {
        guard let value else { throw PostgresError(.decoding, "column \(name(column)) is null") }
        return value
    }

    private func name(_ column: Int) -> String {
        result.columns.indices.contains(column) ? result.columns[column] : "\(column)"
    }
}

/// The server's text form of one-dimensional arrays.
enum ArrayText {
    /// The elements that are not null, or nil for anything but a one-dimensional array.
    static func parse(_ text: UnsafeRawBufferPointer) -> [String]? {
        guard text.count >= 2, text.first == 0x7B, text.last == 0x7D else { return nil }
        var elements: [String] = []
        var position = 1
        let end = text.count - 1
        while position < end {
            var element: [UInt8] = []
            if text[position] == 0x22 {
                position += 1
                while position < end, text[position] != 0x22 {
                    if text[position] == 0x5C { position += 1 }
                    element.append(text[position])
                    position += 1
                }
                position += 1
                elements.append(String(decoding: element, as: UTF8.self))
            } else {
                while position < end, text[position] != 0x2C {
                    guard text[position] != 0x7B else { return nil }
                    element.append(text[position])
                    position += 1
                }
                let word = String(decoding: element, as: UTF8.self)
                if word != "NULL" { elements.append(word) }
            }
            guard position >= end || text[position] == 0x2C else { return nil }
            position += 1
        }
        return elements
    }
}
