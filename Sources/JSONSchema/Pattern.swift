// SPDX-License-Identifier: MPL-2.0

/// A regular expression of ECMAScript without the parts that need backtracking.
///
/// Anchors, classes, groups, alternation, quantifiers, word boundaries and character escapes work; look-around,
/// back-references and Unicode properties are refused. Matching takes time proportional to text times pattern, whatever
/// the pattern, because patterns come from users.
public struct Pattern: Sendable {
    /// Why a pattern cannot be used.
    public struct Problem: Error, Sendable, CustomStringConvertible {
        /// The reason and the pattern.
        public let description: String
    }

    /// The source text.
    public let text: String
    private let program: [Instruction]
    /// Whether there is one way through the pattern, from the beginning of the text: most patterns of identifiers are so.
    private let isStraight: Bool

    enum Instruction: Sendable {
        case match(CharacterSet)
        case split(Int, Int)
        case jump(Int)
        case assert(Assertion)
        case accept
    }

    enum Assertion: Sendable {
        case start, end, wordBoundary, noWordBoundary
    }

    /// Reads a pattern.
    public init(_ text: String) throws(Problem) {
        self.text = text
        var parser = PatternParser(text)
        program = try parser.program()
        isStraight = Self.isStraight(program)
    }

    private static func isStraight(_ program: [Instruction]) -> Bool {
        guard case .assert(.start) = program.first else { return false }
        return program.allSatisfy { instruction in
            switch instruction {
            case .match, .accept, .assert(.start), .assert(.end): true
            case .split, .jump, .assert: false
            }
        }
    }

    /// Tells whether the pattern matches anywhere in a text.
    public func matches(_ text: String) -> Bool {
        isStraight ? goesStraight(through: text) : matchesSomewhere(in: text)
    }

    private func goesStraight(through text: String) -> Bool {
        var rest = text.unicodeScalars[...]
        for instruction in program {
            switch instruction {
            case .match(let set):
                guard let scalar = rest.popFirst(), set.contains(scalar.value) else { return false }
            case .assert(.start):
                guard rest.startIndex == text.startIndex else { return false }
            case .assert:
                guard rest.isEmpty else { return false }
            case .split, .jump, .accept:
                return true
            }
        }
        return true
    }

    private func matchesSomewhere(in text: String) -> Bool {
        let scalars = Array(text.unicodeScalars)
        var current = Threads(program.count)
        var next = Threads(program.count)
        for position in 0...scalars.count {
            // A match may begin at every position.
            if add(0, to: &current, scalars, position) { return true }
            guard position < scalars.count else { return false }
            let scalar = scalars[position].value
            for state in current.list {
                guard case .match(let set) = program[state], set.contains(scalar) else { continue }
                if add(state + 1, to: &next, scalars, position + 1) { return true }
            }
            swap(&current, &next)
            next.clear()
        }
        return false
    }

    /// The states that are alive at a position.
    private struct Threads {
        private(set) var list: [Int] = []
        private var isAlive: [Bool]

        init(_ count: Int) { isAlive = [Bool](repeating: false, count: count) }

        mutating func insert(_ state: Int) -> Bool {
            guard !isAlive[state] else { return false }
            isAlive[state] = true
            list.append(state)
            return true
        }

        mutating func clear() {
            for state in list { isAlive[state] = false }
            list.removeAll(keepingCapacity: true)
        }
    }

    /// Adds a state and everything reachable without reading; true when that accepts.
    private func add(_ start: Int, to threads: inout Threads, _ scalars: [Unicode.Scalar], _ position: Int) -> Bool {
        var pending = [start]
        while let state = pending.popLast() {
            guard threads.insert(state) else { continue }
            switch program[state] {
            case .accept: return true
            case .match: break
            case .jump(let target): pending.append(target)
            case .split(let first, let second): pending += [second, first]
            case .assert(let assertion):
                if holds(assertion, scalars, position) { pending.append(state + 1) }
            }
        }
        return false
    }

    private func holds(_ assertion: Assertion, _ scalars: [Unicode.Scalar], _ position: Int) -> Bool {
        switch assertion {
        case .start: return position == 0
        case .end: return position == scalars.count
        case .wordBoundary, .noWordBoundary:
            let before = position > 0 && CharacterSet.word.contains(scalars[position - 1].value)
            let after = position < scalars.count && CharacterSet.word.contains(scalars[position].value)
            return (before != after) == (assertion == .wordBoundary)
        }
    }
}

/// A set of code points as ranges.
struct CharacterSet: Sendable {
    static let digit = CharacterSet([0x30...0x39])
    static let word = CharacterSet([0x30...0x39, 0x41...0x5A, 0x5F...0x5F, 0x61...0x7A])
    static let blank = CharacterSet([
        0x09...0x0D, 0x20...0x20, 0xA0...0xA0, 0x1680...0x1680, 0x2000...0x200A, 0x2028...0x2029, 0x202F...0x202F,
        0x205F...0x205F, 0x3000...0x3000, 0xFEFF...0xFEFF,
    ])
    static let lineEnd = CharacterSet([0x0A...0x0A, 0x0D...0x0D, 0x2028...0x2029])

    private var ranges: [ClosedRange<UInt32>]
    private var isInverted = false

    init(_ ranges: [ClosedRange<UInt32>]) {
        self.ranges = ranges
    }

    var inverted: CharacterSet {
        var copy = self
        copy.isInverted.toggle()
        return copy
    }

    mutating func insert(_ range: ClosedRange<UInt32>) {
        ranges.append(range)
    }

    /// Adds a set; an inverted one becomes its complementary ranges.
    mutating func insert(_ other: CharacterSet) {
        guard other.isInverted else {
            ranges += other.ranges
            return
        }
        var low: UInt32 = 0
        for range in other.ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if range.lowerBound > low { ranges.append(low...range.lowerBound - 1) }
            low = range.upperBound + 1
        }
        ranges.append(low...0x10FFFF)
    }

    func contains(_ scalar: UInt32) -> Bool {
        for range in ranges where range.contains(scalar) { return !isInverted }
        return isInverted
    }
}
