// SPDX-License-Identifier: MPL-2.0

/// The version of a release: numbers, and how finished it is.
struct ReleaseVersion: Sendable, Hashable, Comparable {
    /// How finished a version is.
    enum Stage: Int, Sendable {
        case alpha
        case beta
        case candidate
        case release
    }

    let numbers: [Int]
    let stage: Stage
    /// Which alpha, beta or candidate.
    let count: Int
    let isESR: Bool
    /// What stands between the numbers and the count, to write the version as it was written.
    private let mark: String

    /// Reads a version such as `60.0b10`, `60.0.1`, `60.1.0esr`, `126.0a1` or `125.0-rc.2`; nil if it is none.
    init?(_ text: String) {
        var rest = text[...]
        var numbers: [Int] = []
        while let number = Self.number(&rest) {
            numbers.append(number)
            guard rest.first == ".", let next = rest.dropFirst().first, next.isASCII, next.isNumber else { break }
            rest = rest.dropFirst()
        }
        guard (1...4).contains(numbers.count) else { return nil }
        self.numbers = numbers
        if rest.isEmpty || rest == "esr" {
            (stage, count, isESR, mark) = (.release, 0, rest == "esr", String(rest))
            return
        }
        let mark = rest.prefix { !$0.isNumber }
        rest = rest.dropFirst(mark.count)
        guard let count = Self.number(&rest), rest.isEmpty else { return nil }
        switch mark.filter({ !"-.".contains($0) }) {
        case "a", "alpha": stage = .alpha
        case "b", "beta": stage = .beta
        case "rc": stage = .candidate
        default: return nil
        }
        self.count = count
        self.mark = String(mark)
        isESR = false
    }

    private init(numbers: [Int], stage: Stage, count: Int, isESR: Bool, mark: String) {
        self.numbers = numbers
        self.stage = stage
        self.count = count
        self.isESR = isESR
        self.mark = mark
    }

    private static func number(_ text: inout Substring) -> Int? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard (1...9).contains(digits.count), let number = Int(digits) else { return nil }
        text = text.dropFirst(digits.count)
        return number
    }

    /// Whether it is the first release of its major version, which is a candidate before it is released.
    var isFirstOfItsKind: Bool { stage == .release && !isESR && numbers.count == 2 }

    /// The version that comes after it.
    var next: ReleaseVersion {
        guard stage == .release || stage == .alpha else {
            return ReleaseVersion(numbers: numbers, stage: stage, count: count + 1, isESR: isESR, mark: mark)
        }
        var next = numbers + Array(repeating: 0, count: max(0, 3 - numbers.count))
        next[2] += 1
        return ReleaseVersion(numbers: next, stage: stage, count: count, isESR: isESR, mark: mark)
    }

    /// The version as it is written.
    var text: String {
        numbers.map(String.init).joined(separator: ".") + mark + (stage == .release ? "" : String(count))
    }

    static func < (left: ReleaseVersion, right: ReleaseVersion) -> Bool {
        let length = max(left.numbers.count, right.numbers.count)
        for index in 0..<length {
            let (one, other) = (left.number(index), right.number(index))
            if one != other { return one < other }
        }
        if left.stage != right.stage { return left.stage.rawValue < right.stage.rawValue }
        if left.count != right.count { return left.count < right.count }
        return !left.isESR && right.isESR
    }

    private func number(_ index: Int) -> Int { index < numbers.count ? numbers[index] : 0 }
}
