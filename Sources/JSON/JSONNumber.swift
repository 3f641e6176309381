// SPDX-License-Identifier: MPL-2.0

/// A JSON number: a double, and the way it was written when JavaScript would write it differently.
///
/// Values are doubles, as in the system we speak with. A number that was read as `1.0`, `1e5` or `9007199254740993`
/// remembers that spelling, so that a stored document comes back byte for byte.
public struct JSONNumber: Sendable {
    /// The spelling lives in a box to keep numbers at two words.
    private final class Spelling: Sendable {
        let text: String

        init(_ text: String) { self.text = text }
    }

    /// Integers up to here are exact doubles.
    private static let exactLimit = 9_007_199_254_740_992.0

    /// The value; infinite only for literals beyond the range of a double or results of arithmetic.
    public private(set) var double: Double
    private var spelling: Spelling?

    /// Makes a number from a double.
    public init(_ double: Double) {
        self.double = double
    }

    /// Makes a number from an integer; all digits of integers beyond 2⁵³ are kept.
    public init(_ int: Int) {
        double = Double(int)
        if abs(double) >= Self.exactLimit {
            let text = String(int)
            if text != JavaScriptNumber.text(double) { spelling = Spelling(text) }
        }
    }

    /// Makes a number that was read from a text.
    init(_ double: Double, spelledAs text: String) {
        self.double = double
        if text != JavaScriptNumber.text(double) { spelling = Spelling(text) }
    }

    /// The value as an integer, or nil when it has a fraction or does not fit.
    ///
    /// Beyond 2⁵³ the spelling decides, so that 64-bit integers survive.
    public var int: Int? {
        if let spelling, let exact = Int(spelling.text) { return exact }
        return Int(exactly: double)
    }

    /// The text as it appears in a document: the original spelling, or JavaScript's.
    public var text: String {
        spelling?.text ?? javascriptText
    }

    /// The text as JavaScript prints it: shortest digits, exponents from 1e21 and below 1e-6, `null` when not finite.
    public var javascriptText: String {
        JavaScriptNumber.text(double)
    }

    /// The value as an integer when printing needs no further thought.
    var plainInteger: Int? {
        guard spelling == nil, let int = Int(exactly: double), abs(double) < Self.exactLimit else { return nil }
        return int
    }
}

extension JSONNumber: Hashable {
    /// Compares by value; beyond 2⁵³, where different integers share a double, by digits.
    public static func == (first: JSONNumber, second: JSONNumber) -> Bool {
        guard first.double == second.double else { return false }
        guard first.spelling != nil || second.spelling != nil, abs(first.double) >= exactLimit else { return true }
        return DecimalText(first.text) == DecimalText(second.text)
    }

    /// Feeds the double, which is the same for equal numbers.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(double)
    }
}

extension JSONNumber: ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral {
    /// Makes a number.
    public init(integerLiteral value: Int) { self.init(value) }

    /// Makes a number.
    public init(floatLiteral value: Double) { self.init(value) }
}

extension JSONNumber: CustomStringConvertible {
    /// The text as it appears in a document.
    public var description: String { text }
}

/// A decimal literal reduced to significant digits and an exponent, to compare literals exactly.
private struct DecimalText: Equatable {
    private var isNegative = false
    private var digits: [UInt8] = []
    private var exponent = 0

    init(_ literal: String) {
        var rest = literal.utf8[...]
        if rest.first == UInt8(ascii: "-") {
            isNegative = true
            rest.removeFirst()
        }
        var isFraction = false
        while let byte = rest.first, byte != UInt8(ascii: "e"), byte != UInt8(ascii: "E") {
            rest.removeFirst()
            if byte == UInt8(ascii: ".") {
                isFraction = true
                continue
            }
            if !(digits.isEmpty && byte == UInt8(ascii: "0")) { digits.append(byte) }
            if isFraction { exponent -= 1 }
        }
        exponent = exponent &+ (Int(Substring(rest.dropFirst())) ?? 0)
        while digits.last == UInt8(ascii: "0") {
            digits.removeLast()
            exponent &+= 1
        }
    }
}
