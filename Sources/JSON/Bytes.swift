// SPDX-License-Identifier: MPL-2.0

/// Tells whether two strings are the same sequence of code points.
///
/// `==` on strings asks for Unicode equivalence, which would merge JSON members that are different on the wire.
@inlinable
package func hasSameBytes(_ first: String, _ second: String) -> Bool {
    guard first.utf8.count == second.utf8.count else { return false }
    let a = first.utf8.span
    let b = second.utf8.span
    for index in a.indices where a[index] != b[index] { return false }
    return true
}

/// Tells whether a string comes before another by code points, which is also the order of their UTF-8 bytes.
@inlinable
package func precedesByBytes(_ first: String, _ second: String) -> Bool {
    let a = first.utf8.span
    let b = second.utf8.span
    for index in 0..<min(a.count, b.count) where a[index] != b[index] { return a[index] < b[index] }
    return a.count < b.count
}

/// Feeds the bytes of a string to a hasher, eight at a time.
func combineBytes(of text: String, into hasher: inout Hasher) {
    let bytes = text.utf8.span
    var word: UInt64 = 0
    for index in bytes.indices {
        word = word << 8 | UInt64(bytes[index])
        if index & 7 == 7 {
            hasher.combine(word)
            word = 0
        }
    }
    hasher.combine(word)
    hasher.combine(bytes.count)
}
