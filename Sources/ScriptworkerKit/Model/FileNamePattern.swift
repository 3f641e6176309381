// SPDX-License-Identifier: MPL-2.0

/// A shell pattern in which `*` and `?` match any character, the slash too, and `[seq]` one of a set.
struct FileNamePattern {
    private let pattern: [Character]

    init(_ pattern: String) {
        self.pattern = Array(pattern)
    }

    func matches(_ name: String) -> Bool { Self.matches(pattern[...], Array(name)[...]) }

    private static func matches(_ pattern: ArraySlice<Character>, _ name: ArraySlice<Character>) -> Bool {
        var pattern = pattern
        var name = name
        // Only the latest star ever needs another try, which keeps this from growing with the number of stars.
        var retry: (pattern: ArraySlice<Character>, name: ArraySlice<Character>)?
        while true {
            if pattern.first == "*" {
                pattern = pattern.dropFirst()
                retry = (pattern, name)
                continue
            }
            if let (rest, isMatch) = step(pattern, name.first), isMatch {
                pattern = rest
                name = name.dropFirst()
                continue
            }
            if pattern.isEmpty, name.isEmpty { return true }
            guard let last = retry, !last.name.isEmpty else { return false }
            retry = (last.pattern, last.name.dropFirst())
            (pattern, name) = (last.pattern, last.name.dropFirst())
        }
    }

    /// Matches one character against the head of a pattern that is not a star.
    private static func step(
        _ pattern: ArraySlice<Character>,
        _ character: Character?
    ) -> (rest: ArraySlice<Character>, isMatch: Bool)? {
        guard let character, let head = pattern.first else { return nil }
        let rest = pattern.dropFirst()
        guard head == "[", let end = rest.dropFirst(rest.first == "!" ? 2 : 1).firstIndex(of: "]") else {
            return (rest, head == "?" || head == character)
        }
        var set = rest[..<end]
        let isNegated = set.first == "!"
        if isNegated { set = set.dropFirst() }
        var isInSet = false
        while let first = set.popFirst() {
            if set.first == "-", set.count > 1 {
                set = set.dropFirst()
                if let last = set.popFirst(), first <= character, character <= last { isInSet = true }
            } else if first == character {
                isInSet = true
            }
        }
        return (rest[(end + 1)...], isInSet != isNegated)
    }
}
