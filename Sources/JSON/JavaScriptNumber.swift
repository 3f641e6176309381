// SPDX-License-Identifier: MPL-2.0

/// Number formatting as in ECMAScript's `Number::toString`.
enum JavaScriptNumber {
    /// The shortest text that reads back as the same double.
    static func text(_ value: Double) -> String {
        guard value.isFinite else { return "null" }
        // By the double: the least integer has no absolute value.
        if value.magnitude <= 9_007_199_254_740_992, let int = Int(exactly: value) { return String(int) }
        return reformatted(value)
    }

    /// Takes the shortest digits from the standard library and lays them out by the rules of ECMAScript.
    private static func reformatted(_ value: Double) -> String {
        var digits: [UInt8] = []
        var exponent = 0
        var fractionDigits = 0
        var isFraction = false
        var bytes = value.magnitude.description.utf8[...]
        while let byte = bytes.popFirst() {
            switch byte {
            case UInt8(ascii: "."):
                isFraction = true
            case UInt8(ascii: "e"):
                exponent = Int(Substring(bytes)) ?? 0
                bytes = bytes[bytes.endIndex...]
            default:
                if !(digits.isEmpty && byte == UInt8(ascii: "0")) { digits.append(byte) }
                if isFraction { fractionDigits += 1 }
            }
        }
        exponent -= fractionDigits
        while digits.last == UInt8(ascii: "0") {
            digits.removeLast()
            exponent += 1
        }
        let text = layOut(digits, pointAfter: digits.count + exponent)
        return value < 0 ? "-" + text : text
    }

    /// Writes digits whose decimal point stands after position `point` (the `n` of the ECMAScript algorithm).
    private static func layOut(_ digits: [UInt8], pointAfter point: Int) -> String {
        let count = digits.count
        var out: [UInt8] = []
        if count <= point, point <= 21 {
            out = digits + zeros(point - count)
        } else if 0 < point, point <= 21 {
            out = digits[..<point] + [UInt8(ascii: ".")] + digits[point...]
        } else if -6 < point, point <= 0 {
            out = [UInt8(ascii: "0"), UInt8(ascii: ".")] + zeros(-point) + digits
        } else {
            out = [digits[0]]
            if count > 1 { out += [UInt8(ascii: ".")] + digits[1...] }
            out += Array((point - 1 < 0 ? "e-" : "e+").utf8) + Array(String(abs(point - 1)).utf8)
        }
        return String(decoding: out, as: UTF8.self)
    }

    private static func zeros(_ count: Int) -> [UInt8] {
        [UInt8](repeating: UInt8(ascii: "0"), count: count)
    }
}
