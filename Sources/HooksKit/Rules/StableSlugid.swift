// SPDX-License-Identifier: MPL-2.0

import Crypto
import Taskcluster

/// Ids that look random and are always the same for the same label and seed.
enum StableSlugid {
    static func make(label: String, seed: String) -> String {
        let digest = SHA256.hash(data: Array("\(seed)\n\(label)".utf8))
        var generator = Digits(bytes: Array(digest))
        return Slugid.make(using: &generator)
    }

    /// Deals out the bytes of a digest, over and over.
    private struct Digits: RandomNumberGenerator {
        let bytes: [UInt8]
        var position = 0

        mutating func next() -> UInt64 {
            (0..<8).reduce(0) { number, _ in
                defer { position = (position + 1) % bytes.count }
                return number << 8 | UInt64(bytes[position])
            }
        }
    }
}
