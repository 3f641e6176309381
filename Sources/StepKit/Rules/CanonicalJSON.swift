// SPDX-License-Identifier: MPL-2.0

import Crypto
public import JSON

/// One text for all spellings of a JSON value, and its digest.
public enum CanonicalJSON {
    /// The text: keys in order, no blanks, numbers as JavaScript prints them.
    public static func bytes(_ value: JSONValue) -> [UInt8] {
        plain(value).bytes(.sorted)
    }

    /// The SHA-256 digest of the text.
    public static func digest(_ value: JSONValue) -> [UInt8] {
        Array(SHA256.hash(data: bytes(value)))
    }

    /// The same value with numbers in their one spelling: `1.0` and `1` are the same number.
    private static func plain(_ value: JSONValue) -> JSONValue {
        switch value {
        case .null, .bool, .string: return value
        case .number(let number):
            // Beyond this only the digits tell neighbours apart.
            return abs(number.double) <= 9_007_199_254_740_992 ? JSONValue(number.double) : value
        case .array(let elements): return .array(elements.map(plain))
        case .object(let members):
            var object = JSONObject()
            object.reserveCapacity(members.count)
            for (key, member) in members { object[key] = plain(member) }
            return .object(object)
        }
    }
}

/// Finds keys that occur twice in one object, which parsers silently resolve one way or the other.
enum DuplicateKeys {
    /// The first repeated key of a JSON text that is known to be valid; nil if there is none.
    static func first(in text: [UInt8]) -> String? {
        var objects: [Set<[UInt8]>?] = []
        var position = 0
        var expectsKey = false
        while position < text.count {
            let byte = text[position]
            switch byte {
            case UInt8(ascii: "{"):
                objects.append([])
                expectsKey = true
            case UInt8(ascii: "["):
                objects.append(nil)
                expectsKey = false
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                _ = objects.popLast()
                expectsKey = false
            case UInt8(ascii: ","):
                if let last = objects.last { expectsKey = last != nil }
            case UInt8(ascii: "\""):
                let start = position
                position += 1
                while position < text.count, text[position] != UInt8(ascii: "\"") {
                    position += text[position] == UInt8(ascii: "\\") ? 2 : 1
                }
                guard expectsKey, position < text.count else { break }
                expectsKey = false
                let key = key(text[start...position])
                guard var keys = objects.popLast() ?? nil else { break }
                let isNew = keys.insert(key).inserted
                objects.append(keys)
                if !isNew { return String(decoding: key, as: UTF8.self) }
            default:
                break
            }
            position += 1
        }
        return nil
    }

    /// A key without quotes and escapes.
    private static func key(_ quoted: ArraySlice<UInt8>) -> [UInt8] {
        guard quoted.contains(UInt8(ascii: "\\")) else { return Array(quoted.dropFirst().dropLast()) }
        let parsed = try? JSONValue(parsing: [UInt8(ascii: "[")] + quoted + [UInt8(ascii: "]")])
        return parsed?[0]?.string.map { Array($0.utf8) } ?? Array(quoted)
    }
}
