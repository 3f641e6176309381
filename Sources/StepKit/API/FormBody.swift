// SPDX-License-Identifier: MPL-2.0

import APIServer

/// The fields of a form as browsers send it.
package struct FormBody: Sendable {
    /// The fields by their names.
    package let fields: [String: String]

    /// Reads a body of the type `application/x-www-form-urlencoded`; the last of several fields of a name counts.
    package init(_ body: [UInt8]) {
        var fields: [String: String] = [:]
        for pair in body.split(separator: UInt8(ascii: "&")) {
            let parts = pair.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            fields[Self.text(parts[0])] = parts.count > 1 ? Self.text(parts[1]) : ""
        }
        self.fields = fields
    }

    private static func text(_ bytes: ArraySlice<UInt8>) -> String {
        let piece = String(decoding: bytes, as: UTF8.self)
        return RawRequest.decoded(query: piece[...]) ?? piece
    }

    /// A field that says yes or no; nil if it says neither.
    package func flag(_ name: String) -> Bool? {
        switch fields[name]?.lowercased() {
        case "true", "1", "on", "yes", "y": true
        case "false", "0", "off", "no", "": false
        default: nil
        }
    }

    /// The fields of one product, whose names may begin with it.
    package func fields(of product: String) -> [String: String] {
        var found = fields.filter { !$0.key.contains("-") }
        for (name, value) in fields where name.hasPrefix("\(product)-") {
            found[String(name.dropFirst(product.count + 1))] = value
        }
        return found
    }
}
