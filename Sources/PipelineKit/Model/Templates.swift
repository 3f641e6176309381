// SPDX-License-Identifier: MPL-2.0

import JSON

/// Finds out whether a value has parts that are computed when a step starts.
enum Templates {
    static func areIn(_ value: JSONValue) -> Bool {
        switch value {
        case .null, .bool, .number: false
        case .string(let text): text.contains("${")
        case .array(let elements): elements.contains(where: areIn)
        case .object(let members): members.contains { $0.key.hasPrefix("$") || areIn($0.value) }
        }
    }
}
