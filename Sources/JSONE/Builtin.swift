// SPDX-License-Identifier: MPL-2.0

import JSON

/// The built-in functions.
enum Builtin: String, CaseIterable {
    case min, max, sqrt, ceil, floor, abs, range, lowercase, uppercase, str, number, len, strip, lstrip, rstrip, split
    case join, fromNow, `typeof`, defined

    /// A function as a value is a not-a-number with this tag and the function's place, which no document can contain.
    private static let tag: UInt64 = 0x7FF8_4A53_4F4E_4500

    private static let all = allCases
    private static let names = NameTable(allCases.map(\.rawValue))

    /// The function with a name.
    static func named(_ name: String) -> Builtin? {
        names.existingNumber(of: name).map { all[Int($0)] }
    }

    var value: JSONValue {
        let index = Self.allCases.firstIndex(of: self) ?? 0
        return JSONValue(Double(bitPattern: Self.tag | UInt64(index)))
    }

    /// The function a value stands for, if it does.
    init?(_ value: JSONValue) {
        guard case .number(let number) = value, number.double.isNaN else { return nil }
        let bits = number.double.bitPattern
        guard bits & ~0xFF == Self.tag, Int(bits & 0xFF) < Self.all.count else { return nil }
        self = Self.all[Int(bits & 0xFF)]
    }

    /// Whether a function is left anywhere in a value.
    static func occurs(in value: JSONValue) -> Bool {
        switch value {
        case .number: Builtin(value) != nil
        case .array(let elements): elements.contains(where: occurs)
        case .object(let members): members.contains { occurs(in: $0.value) }
        default: false
        }
    }
}
