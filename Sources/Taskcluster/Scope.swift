// SPDX-License-Identifier: MPL-2.0

/// The algebra of scopes: strings of printable ASCII in which one trailing `*` stands for "anything from here".
public enum Scope {
    /// Whether `scope` consists of printable ASCII characters only; the empty string is a scope.
    public static func isValid(_ scope: String) -> Bool {
        scope.utf8.allSatisfy(\.isPrintable)
    }

    /// Whether `scope` may be written into a client, role or task: valid and not ending in `**`.
    public static func isGrantable(_ scope: String) -> Bool {
        isValid(scope) && !scope.hasSuffix("**")
    }

    /// Whether one held scope covers a required one, which may itself end in `*`.
    public static func satisfies(_ held: String, _ required: String) -> Bool {
        // Byte by byte and without iterators: a request may ask this a thousand times.
        let isPattern = held.utf8.last == star
        let count = held.utf8.count - (isPattern ? 1 : 0)
        guard isPattern ? required.utf8.count >= count : required.utf8.count == count else { return false }
        let left = held.utf8Span.span
        let right = required.utf8Span.span
        var index = 0
        while index < count, left[index] == right[index] { index += 1 }
        return index == count
    }

    /// Whether any of the held scopes covers the required one.
    public static func satisfies(_ held: [String], _ required: String) -> Bool {
        held.contains { satisfies($0, required) }
    }

    /// Whether the held scopes cover every required one.
    public static func satisfies(_ held: [String], all required: some Sequence<String>) -> Bool {
        required.allSatisfy { satisfies(held, $0) }
    }

    /// Sorted, without duplicates and without scopes that another member covers.
    public static func normalized(_ scopes: some Sequence<String>) -> [String] {
        var result: [String] = []
        // A pattern sorts right before all it covers, so looking at the last survivor is enough.
        for scope in scopes.sorted(by: precedes) {
            if let last = result.last, satisfies(last, scope) { continue }
            result.append(scope)
        }
        return result
    }

    /// Everything either set grants, normalised.
    public static func union(_ first: [String], _ second: [String]) -> [String] {
        normalized(first + second)
    }

    /// What both sets grant, normalised.
    public static func intersection(_ first: [String], _ second: [String]) -> [String] {
        normalized(first.filter { satisfies(second, $0) } + second.filter { satisfies(first, $0) })
    }

    /// The order of normalised sets: a pattern comes right before everything that has its prefix.
    public static func precedes(_ first: String, _ second: String) -> Bool {
        var left = first.utf8.makeIterator()
        var right = second.utf8.makeIterator()
        var leftCount = first.utf8.count
        var rightCount = second.utf8.count
        while true {
            let leftSymbol = symbol(left.next(), isLast: leftCount == 1)
            let rightSymbol = symbol(right.next(), isLast: rightCount == 1)
            if leftSymbol != rightSymbol { return leftSymbol < rightSymbol }
            if leftSymbol < 0 { return false }
            leftCount -= 1
            rightCount -= 1
        }
    }

    static let star = UInt8(ascii: "*")

    /// A final star sorts before the end of the text, which sorts before any character.
    private static func symbol(_ character: UInt8?, isLast: Bool) -> Int {
        guard let character else { return -1 }
        return character == star && isLast ? -2 : Int(character)
    }
}
