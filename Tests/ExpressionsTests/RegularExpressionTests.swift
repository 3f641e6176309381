// SPDX-License-Identifier: MPL-2.0

import Expressions
import Glibc
import Testing

struct RegularExpressionTests {
    private static let places: [RegularExpression.Place] = [.anywhere, .start, .whole]

    @Test func `groups tell what they took, by number and by name`() throws {
        let expression = try RegularExpression(#"(?P<year>\d{4})-(?P<month>\d\d)(-(?P<day>\d\d))?"#)
        let match = try #require(try expression.firstMatch(in: "on 2024-02, é"))
        #expect(match.groups == ["2024-02", "2024", "02", nil, nil])
        #expect(match.named == ["year": "2024", "month": "02"])
        #expect(try expression.firstMatch(in: "on 24-02") == nil)
        #expect(try RegularExpression("é").firstMatch(in: "aéb")?.groups == ["é"])
    }

    @Test func `a match may be wanted at the start or of the whole`() throws {
        let expression = try RegularExpression("a|ab")
        #expect(try Self.places.map { try expression.matches("ab", at: $0) } == [true, true, true])
        #expect(try Self.places.map { try expression.matches("abc", at: $0) } == [true, true, false])
        #expect(try Self.places.map { try expression.matches("xab", at: $0) } == [true, false, false])
        #expect(try expression.firstMatch(in: "ab", at: .whole)?.groups == ["ab"])
        let alternatives = try RegularExpression("b|^c")
        #expect(try alternatives.matches("ab") && !alternatives.matches("ab", at: .start))
    }

    @Test(arguments: [RegularExpression.Dialect.python, .ecmaScript])
    func `the end is the very end`(_ dialect: RegularExpression.Dialect) throws {
        let expression = try RegularExpression("^[a-z]+$", as: dialect)
        #expect(try expression.matches("abc"))
        #expect(try !expression.matches("abc\n"))
        #expect(try !expression.matches("abc\nd"))
    }

    @Test(arguments: [
        ("ab\\q", "invalid escape", 2), ("(*ACCEPT)a", "nothing to repeat", 0), ("x(?C1)", "unknown extension", 1),
        ("é(?C1)", "unknown extension", 2),
    ])
    func `what is no expression is told with its place`(_ text: String, _ message: String, _ offset: Int) throws {
        let problem = try #require(throws: RegularExpression.Problem.self) { try RegularExpression(text) }
        #expect(problem.message.hasPrefix(message))
        #expect(problem.offset == offset)
        #expect(problem.text == text)
        #expect(problem.description == "Invalid regular expression: /\(text)/: \(problem.message) at \(offset)")
    }

    /// What the library itself says of these, and where exactly, is its own business and changes with its version.
    @Test(arguments: ["a(b", "é[b-a]", "a**", "(?P<n>a)(?P<n>b)", "((a{1000}){1000}){9}", "a)", "[a"])
    func `what the library refuses is told as well`(_ text: String) throws {
        let problem = try #require(throws: RegularExpression.Problem.self) { try RegularExpression(text) }
        #expect(!problem.message.isEmpty)
        #expect((0...text.utf8.count).contains(problem.offset))
        #expect(problem.text == text)
        #expect(problem.description == "Invalid regular expression: /\(text)/: \(problem.message) at \(problem.offset)")
    }

    /// Expressions that go back without end on a text that does not match, one for each limit that may be reached first.
    @Test(arguments: [
        ("(a+)+$", String(repeating: "a", count: 40) + "b"), ("^(a|aa)+$", String(repeating: "a", count: 60) + "b"),
        (#"^(\w+\s?)*$"#, String(repeating: "word ", count: 20) + "!"),
        ("(x+x+)+[yz]", String(repeating: "x", count: 50)),
        ("^(?:.|\\n)*?z", String(repeating: "\n", count: 2_000_000)),
        ("(a|b|ab)*[cd]", String(repeating: "ab", count: 500_000)),
    ])
    func `a match that takes too long is given up and neither yes nor no`(_ expression: String, _ text: String) throws {
        for dialect in [RegularExpression.Dialect.python, .ecmaScript] {
            let compiled = try RegularExpression(expression, as: dialect)
            let undecided = try #require(throws: RegularExpression.Undecided.self) { try compiled.matches(text) }
            #expect(undecided.reason.hasPrefix("it takes too m") || undecided.reason == "it goes too deep")
            #expect(undecided.description.hasPrefix("cannot tell whether /\(expression)/ matches: "))
            #expect(!undecided.description.contains(text))
            #expect(throws: RegularExpression.Undecided.self) { try compiled.firstMatch(in: text) }
            var budget = MatchBudget()
            #expect(throws: RegularExpression.Undecided.self) { try compiled.matches(text, within: &budget) }
        }
    }

    @Test func `long texts are no matter for common expressions, even when no time is left`() throws {
        var none = MatchBudget(.zero)
        let text = String(repeating: "some/words-of_a.path ", count: 50_000)
        for expression in ["^[^\\0]*$", "^[\\x20-\\x7e]+$", ".*path $", "zzz|path", "^(?!\\s)", "\\.p[a-z]th"] {
            #expect(try RegularExpression(expression, as: .ecmaScript).matches(text, within: &none), "\(expression)")
        }
        let groups = try RegularExpression("^([a-z]+[/.-]?_?)+$")
        #expect(try groups.matches("some/words-of_a.path", within: &none))
    }

    @Test(arguments: [("^(?:[A-Za-z0-9+/]{4})*$", "YWJj"), ("^(?:[^;]*;)+$", "a=1;")])
    func `an ordinary expression decides texts of a hundred kilobytes`(_ expression: String, _ part: String) throws {
        let compiled = try RegularExpression(expression, as: .ecmaScript)
        let text = String(repeating: part, count: 100_000 / part.utf8.count)
        var budget = MatchBudget()
        // Several of them are in one document.
        for _ in 0..<3 { #expect(try compiled.matches(text, within: &budget)) }
        #expect(try compiled.matches(text))
        #expect(try compiled.firstMatch(in: text)?.groups.first == text)
    }

    @Test func `many hostile texts cost no more than their time together`() throws {
        let expression = try RegularExpression("(a+)+$")
        let text = String(repeating: "a", count: 40) + "b"
        func cost(_ match: () throws -> Bool) -> Duration {
            let clock = { () -> Duration in
                var time = timespec()
                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
                return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
            }
            let began = clock()
            for _ in 0..<200 { #expect(throws: RegularExpression.Undecided.self) { try match() } }
            return clock() - began
        }
        let each = cost { try expression.matches(text) }
        var budget = MatchBudget(.milliseconds(5))
        let together = cost { try expression.matches(text, within: &budget) }
        #expect(together < each / 4)
    }

    @Test func `an escaped text matches only itself`() throws {
        let texts = ["a.b", "a+b", "[x]", "{2}", "^$", "(?:a)", "a\\b/c", "é|ü", "#-&~ ", "a\nb"]
        for dialect in [RegularExpression.Dialect.python, .ecmaScript] {
            for text in texts {
                let expression = try RegularExpression(RegularExpression.escaped(text), as: dialect)
                for other in texts {
                    #expect(try expression.matches(other, at: .whole) == (other == text), "\(text) \(other)")
                }
            }
        }
    }

    @Test func `expressions written alike are equal`() throws {
        let expression = try RegularExpression("a")
        #expect(try expression == RegularExpression("a"))
        #expect(try expression != RegularExpression("a", as: .ecmaScript))
        #expect(try Set([expression, RegularExpression("a"), RegularExpression("b")]).count == 2)
    }

    @Test func `one expression serves many tasks at a time`() async throws {
        let expression = try RegularExpression("^(?P<word>[a-z]+)-(?P<number>[0-9]+)$")
        await withTaskGroup(of: Bool.self) { group in
            for task in 0..<8 {
                group.addTask {
                    (0..<2000).allSatisfy { number in
                        (try? expression.firstMatch(in: "w-\(number + task)"))?.named["number"] == "\(number + task)"
                    }
                }
            }
            for await isRight in group { #expect(isRight) }
        }
    }
}
