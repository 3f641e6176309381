// SPDX-License-Identifier: MPL-2.0

import JSON

/// Bodies of the type `application/x-www-form-urlencoded`.
enum FormBody {
    /// The fields in order; nil if a percent sign is not followed by two digits or the text is not UTF-8.
    static func fields(_ body: [UInt8]) -> [(name: String, value: String)]? {
        var fields: [(name: String, value: String)] = []
        for piece in body.split(separator: UInt8(ascii: "&")) {
            let parts = piece.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = decode(parts[0]), let value = parts.count > 1 ? decode(parts[1]) : "" else { return nil }
            fields.append((name, value))
        }
        return fields
    }

    /// The fields as an object: texts, and lists of texts for names that occur several times.
    static func object(_ fields: [(name: String, value: String)]) -> JSONValue {
        var lists: [String: [JSONValue]] = [:]
        var names: [String] = []
        for (name, value) in fields {
            if lists[name] == nil { names.append(name) }
            lists[name, default: []].append(.string(value))
        }
        return .object(
            JSONObject(
                names.map { name in
                    let values = lists[name] ?? []
                    return (key: name, value: values.count == 1 ? values[0] : .array(values))
                }
            )
        )
    }

    private static func decode(_ piece: ArraySlice<UInt8>) -> String? {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(piece.count)
        var iterator = piece.makeIterator()
        while let byte = iterator.next() {
            switch byte {
            case UInt8(ascii: "+"): bytes.append(UInt8(ascii: " "))
            case UInt8(ascii: "%"):
                guard let high = iterator.next().flatMap(Hexadecimal.value),
                    let low = iterator.next().flatMap(Hexadecimal.value)
                else { return nil }
                bytes.append(high << 4 | low)
            default: bytes.append(byte)
            }
        }
        return String(validating: bytes, as: UTF8.self)
    }
}
