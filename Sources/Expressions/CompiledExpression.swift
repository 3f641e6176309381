// SPDX-License-Identifier: MPL-2.0

import CPCRE2

/// Owns what PCRE2 makes of an expression.
///
/// SAFETY: the library never changes compiled code that is only matched with, and lets any number of threads do so; everything else that
/// a match needs is made for that match. The code is freed when nothing refers to it any more.
final class CompiledExpression: @unchecked Sendable {
    /// A match ended before its outcome was known.
    struct Limit: Error {
        let message: String
    }

    private let code: OpaquePointer
    let names: [(group: Int, name: String)]

    init(_ text: String, _ dialect: RegularExpression.Dialect) throws(RegularExpression.Problem) {
        var translation = ExpressionTranslation(text, dialect)
        try translation.translate()
        guard let context = pcre2_compile_context_create_8(nil) else {
            throw RegularExpression.Problem(message: "out of memory", offset: 0, text: text)
        }
        defer { pcre2_compile_context_free_8(context) }
        pcre2_set_newline_8(context, UInt32(PCRE2_NEWLINE_LF))
        var (failure, offset) = (Int32(0), 0)
        let compiled = translation.bytes.withUnsafeBufferPointer { bytes in
            pcre2_compile_8(bytes.baseAddress, bytes.count, Self.options(dialect), &failure, &offset, context)
        }
        guard let compiled else {
            throw RegularExpression.Problem(
                message: Self.message(failure),
                offset: translation.origin(of: offset),
                text: text
            )
        }
        code = compiled
        names = Self.names(of: compiled)
    }

    deinit { pcre2_code_free_8(code) }

    private static func options(_ dialect: RegularExpression.Dialect) -> UInt32 {
        // Texts of Swift are well-formed already.
        let common = PCRE2_UTF | PCRE2_NO_UTF_CHECK | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C
        return switch dialect {
        case .python: common | PCRE2_UCP
        case .ecmaScript: common | PCRE2_ALLOW_EMPTY_CLASS | PCRE2_MATCH_UNSET_BACKREF
        }
    }

    private static func message(_ code: Int32) -> String {
        var buffer = [UInt8](repeating: 0, count: 256)
        let length = pcre2_get_error_message_8(code, &buffer, buffer.count)
        return length > 0 ? String(decoding: buffer.prefix(Int(length)), as: UTF8.self) : "error \(code)"
    }

    /// Why a match ended too soon, in words that do not change with the library.
    private static func reason(_ code: Int32) -> String {
        switch code {
        case PCRE2_ERROR_MATCHLIMIT: "it takes too many steps"
        case PCRE2_ERROR_DEPTHLIMIT: "it goes too deep"
        case PCRE2_ERROR_HEAPLIMIT: "it takes too much memory"
        default: message(code)
        }
    }

    /// Reads the table of names: the number of the group in two bytes, the name, a zero, in entries of one length.
    private static func names(of code: OpaquePointer) -> [(group: Int, name: String)] {
        var (count, length, table) = (UInt32(0), UInt32(0), UnsafePointer<UInt8>?.none)
        pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_NAMECOUNT), &count)
        pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_NAMEENTRYSIZE), &length)
        pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_NAMETABLE), &table)
        guard let table else { return [] }
        return (0..<Int(count)).map { index in
            let entry = table + index * Int(length)
            return (Int(entry[0]) << 8 | Int(entry[1]), String(cString: entry + 2))
        }
    }

    // MARK: - Matching

    func matches(_ text: String, _ place: RegularExpression.Place, steps: UInt32) throws(Limit) -> Bool {
        try match(text, place, steps, data: pcre2_match_data_create_8(1, nil)) { _, _ in true } ?? false
    }

    /// Tries with few steps, and with as many as the budget allows when these are not enough.
    func matches(_ text: String, within budget: inout MatchBudget) throws(Limit) -> Bool {
        let length = text.utf8.count
        let few = Self.steps(length, base: 200, each: 8, work: 10_000_000, least: 200)
        do throws(Limit) {
            // Reading the clock would cost more than such a match of a short text.
            if length < 256 { return try matches(text, .anywhere, steps: few) }
            return try budget.spend { () throws(Limit) in try matches(text, .anywhere, steps: few) }
        } catch {
            let work = min(budget.work, Self.usualWork)
            guard work > 0 else { throw error }
            let more = Self.steps(length, work: work)
            return try budget.spend { () throws(Limit) in try matches(text, .anywhere, steps: more) }
        }
    }

    func firstMatch(_ text: String, _ place: RegularExpression.Place) throws(Limit) -> RegularExpression.Match? {
        let steps = Self.steps(text.utf8.count)
        return try match(text, place, steps, data: pcre2_match_data_create_from_pattern_8(code, nil)) { bytes, data in
            guard let ends = pcre2_get_ovector_pointer_8(data) else { return nil }
            let groups = (0..<Int(pcre2_get_ovector_count_8(data))).map { group -> String? in
                let (start, end) = (ends[2 * group], ends[2 * group + 1])
                // A group that took no part has places below zero.
                guard 0 <= start, start <= end, end <= bytes.count else { return nil }
                return String(decoding: bytes[start..<end], as: UTF8.self)
            }
            var named: [String: String] = [:]
            for (group, name) in names { named[name] = groups[group] }
            return RegularExpression.Match(groups: groups, named: named)
        }
    }

    private func match<Value>(
        _ text: String,
        _ place: RegularExpression.Place,
        _ steps: UInt32,
        data: OpaquePointer?,
        _ read: (UnsafeBufferPointer<UInt8>, OpaquePointer) -> Value?
    ) throws(Limit) -> Value? {
        defer { pcre2_match_data_free_8(data) }
        guard let data, let context = pcre2_match_context_create_8(nil) else { throw Limit(message: "out of memory") }
        defer { pcre2_match_context_free_8(context) }
        var text = text
        var value: Value?
        let outcome = text.withUTF8 { bytes in
            pcre2_set_match_limit_8(context, steps)
            pcre2_set_depth_limit_8(context, steps)
            pcre2_set_heap_limit_8(context, Self.heapLimit)
            let options =
                switch place {
                case .anywhere: PCRE2_NO_UTF_CHECK
                case .start: PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED
                case .whole: PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED | PCRE2_ENDANCHORED
                }
            let outcome = pcre2_match_8(code, bytes.baseAddress, bytes.count, 0, options, data, context)
            if outcome >= 0 { value = read(bytes, data) }
            return outcome
        }
        guard outcome >= 0 || outcome == PCRE2_ERROR_NOMATCH else { throw Limit(message: Self.reason(outcome)) }
        return value
    }

    /// What one match may take of the heap, in KiB.
    private static let heapLimit: UInt32 = 16 * 1024

    /// What one match may cost, in characters looked at: about a second when every step looks at the whole text.
    static let usualWork = 4_000_000_000

    /// How many steps a match with a text may take.
    ///
    /// Expressions that are meant well take a few for each character, and more for short texts; others grow with a power of the length.
    /// As one step may look at the whole text, long texts get fewer for each character.
    static func steps(
        _ length: Int,
        base: Int = 100_000,
        each: Int = 50,
        work: Int = usualWork,
        least: Int = 1000
    ) -> UInt32 {
        UInt32(max(least, min(base + each * length, work / max(length, 1))))
    }
}
