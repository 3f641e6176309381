// SPDX-License-Identifier: MPL-2.0

/// Compares two secrets in a time that tells nothing about where they differ.
func areEqualInConstantTime(_ first: String, _ second: String) -> Bool {
    let first = Array(first.utf8)
    let second = Array(second.utf8)
    guard first.count == second.count else { return false }
    return zip(first, second).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
}
