// SPDX-License-Identifier: MPL-2.0

/// Compiles the text of a pattern into a program for ``Pattern``.
struct PatternParser {
    private static let instructionLimit = 50_000

    private let source: String
    private let scalars: [Unicode.Scalar]
    private var offset = 0
    private var depth = 0

    private indirect enum Node {
        case empty
        case set(CharacterSet)
        case assertion(Pattern.Assertion)
        case sequence([Node])
        case choice(Node, Node)
        case repetition(Node, least: Int, most: Int?)
    }

    init(_ source: String) {
        self.source = source
        scalars = Array(source.unicodeScalars)
    }

    mutating func program() throws(Pattern.Problem) -> [Pattern.Instruction] {
        let node = try alternatives()
        guard offset == scalars.count else { throw problem("unmatched ')'") }
        var program: [Pattern.Instruction] = []
        try emit(node, into: &program)
        program.append(.accept)
        return program
    }

    private func problem(_ reason: String) -> Pattern.Problem {
        Pattern.Problem(description: "Invalid regular expression: /\(source)/: \(reason)")
    }

    private func peek(_ distance: Int = 0) -> Unicode.Scalar? {
        offset + distance < scalars.count ? scalars[offset + distance] : nil
    }

    private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        guard peek() == scalar else { return false }
        offset += 1
        return true
    }

    private mutating func alternatives() throws(Pattern.Problem) -> Node {
        depth += 1
        defer { depth -= 1 }
        guard depth < 200 else { throw problem("too many nested groups") }
        var branches = [try sequence()]
        while take("|") { branches.append(try sequence()) }
        guard var node = branches.popLast() else { return .empty }
        while let branch = branches.popLast() { node = .choice(branch, node) }
        return node
    }

    private mutating func sequence() throws(Pattern.Problem) -> Node {
        var nodes: [Node] = []
        while let scalar = peek(), scalar != "|", scalar != ")" {
            nodes.append(try quantified(try atom()))
        }
        return nodes.count == 1 ? nodes[0] : .sequence(nodes)
    }

    private mutating func atom() throws(Pattern.Problem) -> Node {
        guard let scalar = peek() else { return .empty }
        offset += 1
        switch scalar {
        case "^": return .assertion(.start)
        case "$": return .assertion(.end)
        case ".": return .set(CharacterSet.lineEnd.inverted)
        case "[": return .set(try characterClass())
        case "(": return try group()
        case "\\": return try escape()
        case "*", "+", "?": throw problem("nothing to repeat")
        default: return .set(CharacterSet([scalar.value...scalar.value]))
        }
    }

    private mutating func group() throws(Pattern.Problem) -> Node {
        if take("?") {
            if take("<"), peek() != "=", peek() != "!" {
                while let scalar = peek(), scalar != ">" {
                    guard CharacterSet.word.contains(scalar.value) || scalar == "$" else {
                        throw problem("invalid group name")
                    }
                    offset += 1
                }
                guard take(">") else { throw problem("invalid group name") }
            } else {
                guard take(":") else { throw problem("look-around is not supported") }
            }
        }
        let node = try alternatives()
        guard take(")") else { throw problem("unterminated group") }
        return node
    }

    private mutating func quantified(_ node: Node) throws(Pattern.Problem) -> Node {
        let least: Int
        var most: Int?
        switch peek() {
        case "*": least = 0
        case "+": least = 1
        case "?": (least, most) = (0, 1)
        case "{":
            guard let bounds = bounds() else { return node }
            (least, most) = bounds
            offset -= 1
        default: return node
        }
        if case .assertion = node { throw problem("nothing to repeat") }
        offset += 1
        _ = take("?")
        if let scalar = peek(), scalar == "*" || scalar == "+" || scalar == "?" { throw problem("nothing to repeat") }
        if let most, most < least { throw problem("numbers out of order in {} quantifier") }
        return .repetition(node, least: least, most: most)
    }

    /// Reads `{n}`, `{n,}` or `{n,m}`; anything else is literal text.
    private mutating func bounds() -> (Int, Int?)? {
        let start = offset
        offset += 1
        if let least = integer() {
            if take("}") { return (least, least) }
            if take(",") {
                if take("}") { return (least, nil) }
                if let most = integer(), take("}") { return (least, most) }
            }
        }
        offset = start
        return nil
    }

    private mutating func integer() -> Int? {
        let start = offset
        while let scalar = peek(), CharacterSet.digit.contains(scalar.value) { offset += 1 }
        return Int(String(String.UnicodeScalarView(scalars[start..<offset])))
    }

    private mutating func escape() throws(Pattern.Problem) -> Node {
        switch peek() {
        case "b":
            offset += 1
            return .assertion(.wordBoundary)
        case "B":
            offset += 1
            return .assertion(.noWordBoundary)
        case let scalar? where ("1"..."9").contains(scalar): throw problem("back-references are not supported")
        case "k": throw problem("back-references are not supported")
        default: return .set(try escapedSet())
        }
    }

    private mutating func escapedSet() throws(Pattern.Problem) -> CharacterSet {
        guard let scalar = peek() else { throw problem("\\ at end of pattern") }
        offset += 1
        switch scalar {
        case "d": return .digit
        case "D": return CharacterSet.digit.inverted
        case "w": return .word
        case "W": return CharacterSet.word.inverted
        case "s": return .blank
        case "S": return CharacterSet.blank.inverted
        case "p", "P": throw problem("Unicode properties are not supported")
        default:
            let value = try escapedScalar(scalar)
            return CharacterSet([value...value])
        }
    }

    private mutating func escapedScalar(_ scalar: Unicode.Scalar) throws(Pattern.Problem) -> UInt32 {
        switch scalar {
        case "n": return 0x0A
        case "r": return 0x0D
        case "t": return 0x09
        case "v": return 0x0B
        case "f": return 0x0C
        case "0": return 0
        case "x": return try hexadecimal(2)
        case "u" where peek() == "{":
            offset += 1
            let digits = scalars[offset...].prefix { $0 != "}" }
            offset += digits.count + 1
            guard let value = UInt32(String(String.UnicodeScalarView(digits)), radix: 16), value <= 0x10FFFF else {
                throw problem("invalid Unicode escape")
            }
            return value
        case "u":
            let first = try hexadecimal(4)
            guard 0xD800...0xDBFF ~= first, peek() == "\\", peek(1) == "u" else { return first }
            offset += 2
            let second = try hexadecimal(4)
            guard 0xDC00...0xDFFF ~= second else { throw problem("invalid Unicode escape") }
            return 0x10000 + (first - 0xD800) << 10 + (second - 0xDC00)
        case "c":
            guard let letter = peek(), letter.properties.isAlphabetic, letter.isASCII else {
                throw problem("invalid control escape")
            }
            offset += 1
            return letter.value & 31
        default: return scalar.value
        }
    }

    private mutating func hexadecimal(_ count: Int) throws(Pattern.Problem) -> UInt32 {
        let digits = scalars[offset...].prefix(count)
        guard digits.count == count, let value = UInt32(String(String.UnicodeScalarView(digits)), radix: 16) else {
            throw problem("invalid escape")
        }
        offset += count
        return value
    }

    private mutating func characterClass() throws(Pattern.Problem) -> CharacterSet {
        let isInverted = take("^")
        var set = CharacterSet([])
        while !take("]") {
            guard peek() != nil else { throw problem("unterminated character class") }
            let low = try classMember(into: &set)
            guard peek() == "-", let after = peek(1), after != "]" else {
                if let low { set.insert(low...low) }
                continue
            }
            offset += 1
            let high = try classMember(into: &set)
            if let low, let high {
                guard low <= high else { throw problem("range out of order in character class") }
                set.insert(low...high)
            } else {
                // `[\w-.]`: the dash stands for itself.
                for value in [low, high, 0x2D] { if let value { set.insert(value...value) } }
            }
        }
        return isInverted ? set.inverted : set
    }

    /// Reads one member of a class; sets such as `\d` are inserted at once.
    private mutating func classMember(into set: inout CharacterSet) throws(Pattern.Problem) -> UInt32? {
        guard let scalar = peek() else { throw problem("unterminated character class") }
        offset += 1
        guard scalar == "\\" else { return scalar.value }
        switch peek() {
        case "b":
            offset += 1
            return 0x08
        case "d", "D", "w", "W", "s", "S", "p", "P", nil:
            set.insert(try escapedSet())
            return nil
        case let escaped?:
            offset += 1
            return try escapedScalar(escaped)
        }
    }

    private func emit(_ node: Node, into program: inout [Pattern.Instruction]) throws(Pattern.Problem) {
        guard program.count < Self.instructionLimit else { throw problem("too large") }
        switch node {
        case .empty: break
        case .set(let set): program.append(.match(set))
        case .assertion(let assertion): program.append(.assert(assertion))
        case .sequence(let nodes):
            for node in nodes { try emit(node, into: &program) }
        case .choice(let first, let second):
            let split = program.count
            program.append(.accept)
            try emit(first, into: &program)
            let jump = program.count
            program.append(.accept)
            program[split] = .split(split + 1, program.count)
            try emit(second, into: &program)
            program[jump] = .jump(program.count)
        case .repetition(let node, let least, let most):
            try emitRepetition(node, least, most, into: &program)
        }
    }

    private func emitRepetition(
        _ node: Node,
        _ least: Int,
        _ most: Int?,
        into program: inout [Pattern.Instruction]
    ) throws(Pattern.Problem) {
        guard max(least, most ?? 0) <= Self.instructionLimit else { throw problem("too large") }
        for _ in 0..<least { try emit(node, into: &program) }
        guard let most else {
            let split = program.count
            program.append(.accept)
            try emit(node, into: &program)
            program.append(.jump(split))
            program[split] = .split(split + 1, program.count)
            return
        }
        var splits: [Int] = []
        for _ in least..<most {
            splits.append(program.count)
            program.append(.accept)
            try emit(node, into: &program)
        }
        for split in splits { program[split] = .split(split + 1, program.count) }
    }
}
