// SPDX-License-Identifier: MPL-2.0

/// A key that senders sign with; it never shows itself in logs.
struct Secret: Sendable, CustomStringConvertible, CustomReflectable {
    /// The bytes of the key.
    let bytes: [UInt8]

    init(_ text: String) {
        bytes = Array(text.utf8)
    }

    var description: String { "..." }
    var customMirror: Mirror { Mirror(self, children: []) }
}
