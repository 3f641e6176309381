// SPDX-License-Identifier: MPL-2.0

/// A regular expression of a configuration, a schema or another document, compiled by PCRE2.
///
/// Neither the expression nor the text need be trusted: a match that takes too many steps ends as ``Undecided``, which callers must
/// treat as a refusal. Any number of tasks may use one at the same time.
public struct RegularExpression: Sendable {
    /// Whose language an expression is written in.
    ///
    /// What neither language has is refused, so that nothing means something else here than where it comes from. In both, `$` is the
    /// very end of the text and not also the place before a last line end, because identifiers are checked with it.
    public enum Dialect: Sendable {
        /// Python's `re`: words, digits and blanks are those of Unicode; `(?<name>…)` may stand for `(?P<name>…)`.
        ///
        /// The difference that is left: control characters 0x1c to 0x1f are no blanks.
        case python
        /// ECMA-262 with the flag `u`, as JSON Schema wants it: words and digits are ASCII.
        ///
        /// The differences that are left: signs may be escaped that need not be; a lone brace stands for itself; look-behind must be of a
        /// fixed length; properties are named by their short names (`\p{Lu}`, `\p{Greek}`); `\S` inside of brackets knows ASCII blanks
        /// only.
        case ecmaScript
    }

    /// Where in the text a match must lie.
    public enum Place: Sendable {
        /// Anywhere.
        case anywhere
        /// It begins where the text begins.
        case start
        /// It is the whole text.
        case whole
    }

    /// Why a text is no regular expression.
    public struct Problem: Error, Sendable, Hashable, CustomStringConvertible {
        /// The reason.
        public let message: String
        /// Where in the text, in bytes from its beginning.
        public let offset: Int
        /// The text.
        public let text: String

        /// One line with all of it.
        public var description: String { "Invalid regular expression: /\(text)/: \(message) at \(offset)" }
    }

    /// A match that was given up.
    public struct Undecided: Error, Sendable, Hashable, CustomStringConvertible {
        /// Which limit was reached.
        public let reason: String
        /// The expression.
        public let text: String

        /// One line, without the text that was looked at.
        public var description: String { "cannot tell whether /\(text)/ matches: \(reason)" }
    }

    /// Where an expression matched.
    public struct Match: Sendable, Hashable {
        /// The whole match and what each group took, if it did.
        public let groups: [String?]
        /// What the groups with names took, as far as they did.
        public let named: [String: String]
    }

    /// The source.
    public let text: String
    /// The language of the source.
    public let dialect: Dialect
    private let compiled: CompiledExpression

    /// The names of its groups.
    public var names: Set<String> { Set(compiled.names.map(\.name)) }

    /// Compiles an expression.
    public init(_ text: String, as dialect: Dialect = .python) throws(Problem) {
        self.text = text
        self.dialect = dialect
        compiled = try CompiledExpression(text, dialect)
    }

    /// Tells whether the expression matches.
    public func matches(_ text: String, at place: Place = .anywhere) throws(Undecided) -> Bool {
        do throws(CompiledExpression.Limit) {
            return try compiled.matches(text, place, steps: CompiledExpression.steps(text.utf8.count))
        } catch {
            throw Undecided(reason: error.message, text: self.text)
        }
    }

    /// Tells whether the expression matches somewhere, in what is left of a time for many matches.
    public func matches(_ text: String, within budget: inout MatchBudget) throws(Undecided) -> Bool {
        do throws(CompiledExpression.Limit) {
            return try compiled.matches(text, within: &budget)
        } catch {
            throw Undecided(reason: error.message, text: self.text)
        }
    }

    /// Finds the first match.
    public func firstMatch(in text: String, at place: Place = .anywhere) throws(Undecided) -> Match? {
        do throws(CompiledExpression.Limit) {
            return try compiled.firstMatch(text, place)
        } catch {
            throw Undecided(reason: error.message, text: self.text)
        }
    }

    /// The text as an expression of either language that matches only itself.
    public static func escaped(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            if #"\^$.|?*+()[]{}/"#.unicodeScalars.contains(scalar) { result.unicodeScalars.append("\\") }
            result.unicodeScalars.append(scalar)
        }
        return result
    }
}

extension RegularExpression: Hashable {
    /// Expressions are equal when they are written alike.
    public static func == (left: Self, right: Self) -> Bool { left.text == right.text && left.dialect == right.dialect }

    /// Equal expressions have equal hashes.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(text)
        hasher.combine(dialect)
    }
}
