// SPDX-License-Identifier: MPL-2.0

/// A key that senders sign with; it never shows itself in logs.
package struct Secret: Sendable, CustomStringConvertible, CustomReflectable {
    /// The bytes of the key.
    package let bytes: [UInt8]

    package init(_ text: String) {
        bytes = Array(text.utf8)
    }

    /// The key, to show it to the other side.
    package var text: String { String(decoding: bytes, as: UTF8.self) }

    /// Whether somebody showed this key; takes a time that tells nothing about where the two differ.
    package func matches(_ shown: [UInt8]) -> Bool { Signature.areEqual(bytes, shown) }

    package var description: String { "..." }
    package var customMirror: Mirror { Mirror(self, children: []) }
}
