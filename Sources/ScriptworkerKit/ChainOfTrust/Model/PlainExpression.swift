// SPDX-License-Identifier: MPL-2.0

/// A regular expression made of literals, classes, groups, alternatives, `* + ?` and anchors, matched against printable ASCII.
///
/// Declared rules about addresses need no more, and a chain asks them about every file of every task: this takes a microsecond where the
/// general engine takes forty. Whatever goes beyond that, in the expression or in the text, is left to the general engine.
struct PlainExpression: Sendable {
    private enum Step: Sendable {
        case one(ASCIISet)
        case start, end
        case save(Int)
        /// Goes on at the first place, and at the second if that fails.
        case either(Int, Int)
        case jump(Int)
        case accept
    }

    private let steps: [Step]
    private let slots: Int
    private let names: [(slot: Int, name: String)]

    /// Nil when it is not as plain as that.
    init?(_ text: String) {
        var reader = Reader(text)
        guard let steps = reader.expression() else { return nil }
        self.steps = Self.assembled(steps) + [.accept]
        slots = 2 * reader.groups
        names = reader.names
    }

    /// The outcome for a text, whose named groups are told if it matches somewhere.
    enum Outcome: Equatable {
        case match([String: String]), noMatch, notPlain
    }

    func outcome(for text: String) -> Outcome {
        guard text.utf8.allSatisfy({ (0x20...0x7e).contains($0) }) else { return .notPlain }
        let bytes = Array(text.utf8)
        let isAnchored = if case .start = steps.first { true } else { false }
        for start in 0...(isAnchored ? 0 : bytes.count) {
            guard let saved = match(bytes, from: start) else { continue }
            var groups: [String: String] = [:]
            for (slot, name) in names where saved[slot] >= 0 && saved[slot + 1] >= 0 {
                groups[name] = String(decoding: bytes[saved[slot]..<saved[slot + 1]], as: UTF8.self)
            }
            return .match(groups)
        }
        return .noMatch
    }

    /// What to go back to when a way leads nowhere.
    private enum Choice {
        case place(step: Int, position: Int)
        case slot(Int, was: Int)
    }

    private func match(_ bytes: [UInt8], from start: Int) -> [Int]? {
        var saved = [Int](repeating: -1, count: slots)
        var choices: [Choice] = []
        var (step, position) = (0, start)
        while true {
            var fails = false
            switch steps[step] {
            case .accept: return saved
            case .one(let set):
                fails = position == bytes.count || !set.contains(bytes[position])
                position += 1
                step += 1
            case .start:
                fails = position != 0
                step += 1
            case .end:
                fails = position != bytes.count
                step += 1
            case .save(let slot):
                choices.append(.slot(slot, was: saved[slot]))
                saved[slot] = position
                step += 1
            case .either(let first, let second):
                choices.append(.place(step: second, position: position))
                step = first
            case .jump(let target): step = target
            }
            while fails {
                switch choices.popLast() {
                case nil: return nil
                case .slot(let slot, let value): saved[slot] = value
                case .place(let other, let then): (step, position, fails) = (other, then, false)
                }
            }
        }
    }

    // MARK: - Reading

    private indirect enum Part {
        case one(ASCIISet)
        case start, end
        case group(Int, Part)
        case sequence([Part])
        case alternatives([Part])
        case option(Part, isLazy: Bool)
        case loop(Part, isLazy: Bool)

        var canBeEmpty: Bool {
            switch self {
            case .one: false
            case .start, .end, .option, .loop: true
            case .group(_, let part): part.canBeEmpty
            case .sequence(let parts): parts.allSatisfy(\.canBeEmpty)
            case .alternatives(let parts): parts.contains(where: \.canBeEmpty)
            }
        }
    }

    private static func assembled(_ part: Part, at place: Int = 0) -> [Step] {
        switch part {
        case .one(let set): return [.one(set)]
        case .start: return [.start]
        case .end: return [.end]
        case .group(let number, let part):
            return [.save(2 * number)] + assembled(part, at: place + 1) + [.save(2 * number + 1)]
        case .sequence(let parts):
            return parts.reduce(into: []) { $0 += assembled($1, at: place + $0.count) }
        case .alternatives(let parts):
            guard let first = parts.first, parts.count > 1 else {
                return parts.first.map { assembled($0, at: place) } ?? []
            }
            let one = assembled(first, at: place + 1)
            let next = place + 1 + one.count + 1
            let others = assembled(.alternatives(Array(parts.dropFirst())), at: next)
            return [.either(place + 1, next)] + one + [.jump(next + others.count)] + others
        case .option(let part, let isLazy):
            let one = assembled(part, at: place + 1)
            let next = place + 1 + one.count
            return [isLazy ? .either(next, place + 1) : .either(place + 1, next)] + one
        case .loop(let part, let isLazy):
            let one = assembled(part, at: place + 1)
            let next = place + 1 + one.count + 1
            return [isLazy ? .either(next, place + 1) : .either(place + 1, next)] + one + [.jump(place)]
        }
    }

    private struct Reader {
        private var rest: Substring.UTF8View
        private(set) var groups = 0
        private(set) var names: [(slot: Int, name: String)] = []

        init(_ text: String) { rest = Substring(text).utf8 }

        mutating func expression() -> Part? {
            guard let part = alternatives(), rest.isEmpty else { return nil }
            return part
        }

        private mutating func take(_ text: StaticString) -> Bool {
            let wanted = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
            guard rest.starts(with: wanted) else { return false }
            rest = rest.dropFirst(wanted.count)
            return true
        }

        private mutating func alternatives() -> Part? {
            var parts: [Part] = []
            repeat {
                var sequence: [Part] = []
                while let byte = rest.first, byte != UInt8(ascii: "|"), byte != UInt8(ascii: ")") {
                    guard let atom = atom(), let part = quantified(atom) else { return nil }
                    sequence.append(part)
                }
                parts.append(.sequence(sequence))
            } while take("|")
            return parts.count == 1 ? parts[0] : .alternatives(parts)
        }

        private mutating func quantified(_ part: Part) -> Part? {
            guard let sign = rest.first, "*+?".utf8.contains(sign) else { return part }
            rest = rest.dropFirst()
            let isLazy = take("?")
            // What matches nothing could be repeated for ever; the rest of the quantifiers is not plain.
            guard !part.canBeEmpty, !(rest.first.map { "*+?".utf8.contains($0) } ?? false) else { return nil }
            switch sign {
            case UInt8(ascii: "*"): return .loop(part, isLazy: isLazy)
            case UInt8(ascii: "+"): return .sequence([part, .loop(part, isLazy: isLazy)])
            default: return .option(part, isLazy: isLazy)
            }
        }

        private mutating func atom() -> Part? {
            if take("^") { return .start }
            if take("$") { return .end }
            if take(".") { return .one(.all) }
            if take("(") { return group() }
            if take("[") { return characters().map { .one($0) } }
            guard let byte = rest.popFirst(), (0x20...0x7e).contains(byte) else { return nil }
            if byte == UInt8(ascii: "\\") { return escape().map { .one($0) } }
            return "*+?{}]".utf8.contains(byte) ? nil : .one(ASCIISet(byte...byte))
        }

        private mutating func group() -> Part? {
            var name: String?
            if take("?:") {
                guard let part = alternatives(), take(")") else { return nil }
                return part
            }
            if take("?P<") || take("?<") {
                let text = rest.prefix { ASCIISet.word.contains($0) }
                rest = rest[text.endIndex...]
                guard !text.isEmpty, take(">") else { return nil }
                name = String(decoding: text, as: UTF8.self)
            } else if rest.first == UInt8(ascii: "?") {
                return nil
            }
            let number = groups
            groups += 1
            if let name { names.append((2 * number, name)) }
            guard let part = alternatives(), take(")") else { return nil }
            return .group(number, part)
        }

        private mutating func escape() -> ASCIISet? {
            guard let byte = rest.popFirst(), (0x21...0x7e).contains(byte) else { return nil }
            switch byte {
            case UInt8(ascii: "d"): return .digit
            case UInt8(ascii: "w"): return .word
            default: return ASCIISet.word.contains(byte) ? nil : ASCIISet(byte...byte)
            }
        }

        private mutating func characters() -> ASCIISet? {
            let isInverted = take("^")
            var set = ASCIISet()
            repeat {
                guard let byte = rest.popFirst(), (0x20...0x7e).contains(byte) else { return nil }
                if byte == UInt8(ascii: "\\") {
                    guard let escaped = escape() else { return nil }
                    set.formUnion(escaped)
                    continue
                }
                // These begin something more than a list.
                guard !"[]&~-^".utf8.contains(byte) else { return nil }
                guard rest.first == UInt8(ascii: "-"), let last = rest.dropFirst().first, last != UInt8(ascii: "]")
                else {
                    if rest.first == UInt8(ascii: "-") {
                        rest = rest.dropFirst()
                        set.formUnion(ASCIISet(UInt8(ascii: "-")...UInt8(ascii: "-")))
                    }
                    set.formUnion(ASCIISet(byte...byte))
                    continue
                }
                guard ASCIISet.word.contains(last), byte <= last else { return nil }
                rest = rest.dropFirst(2)
                set.formUnion(ASCIISet(byte...last))
            } while !take("]")
            return isInverted ? set.inverted : set
        }
    }
}

/// A set of ASCII characters.
struct ASCIISet: Sendable, Equatable {
    private var low: UInt64 = 0
    private var high: UInt64 = 0

    init() {}

    init(_ range: ClosedRange<UInt8>) {
        for byte in range where byte < 128 {
            if byte < 64 { low |= 1 << UInt64(byte) } else { high |= 1 << UInt64(byte - 64) }
        }
    }

    static let all = ASCIISet(0...127)
    static let digit = ASCIISet(0x30...0x39)
    static let word: ASCIISet = {
        var set = digit
        set.formUnion(ASCIISet(0x41...0x5a))
        set.formUnion(ASCIISet(0x61...0x7a))
        set.formUnion(ASCIISet(0x5f...0x5f))
        return set
    }()

    mutating func formUnion(_ other: ASCIISet) {
        low |= other.low
        high |= other.high
    }

    var inverted: ASCIISet {
        var set = self
        set.low = ~low
        set.high = ~high
        return set
    }

    func contains(_ byte: UInt8) -> Bool {
        byte < 64 ? low >> UInt64(byte) & 1 == 1 : byte < 128 && high >> UInt64(byte - 64) & 1 == 1
    }
}
