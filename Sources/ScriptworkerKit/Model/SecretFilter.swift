// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc

/// Blots out texts that must not be shown.
///
/// A script may print hundreds of megabytes a second, and almost none of it is a secret, so most bytes are not even looked at: the pair of
/// bytes at the end of a window as long as the shortest secret tells how far the window may move (the method of Wu and Manber).
struct SecretFilter: Sendable {
    /// Shorter texts would blot out ordinary words.
    static let shortest = 8
    private(set) var secrets: [[UInt8]] = []
    private var window = 0
    private var moves: [UInt8] = []

    /// Whether a text is hidden already.
    func contains(_ secret: String) -> Bool { secrets.contains(Array(secret.utf8)) }

    /// Adds a text; of more than a few the third oldest is forgotten, since the first two are the worker's own.
    mutating func hide(_ secret: String) {
        let bytes = Array(secret.utf8)
        guard bytes.count >= Self.shortest, !secrets.contains(bytes) else { return }
        // Credentials of tasks change for ever; old ones have long expired.
        if secrets.count >= 8 { secrets.remove(at: 2) }
        secrets.append(bytes)
        prepare()
    }

    private mutating func prepare() {
        window = min(200, secrets.map(\.count).min() ?? 0)
        moves = [UInt8](repeating: UInt8(window - 1), count: 1 << 16)
        for secret in secrets {
            for end in 1..<window {
                let pair = Int(secret[end - 1]) << 8 | Int(secret[end])
                moves[pair] = min(moves[pair], UInt8(window - 1 - end))
            }
        }
    }

    /// Replaces every secret by as many asterisks.
    func mask(_ bytes: UnsafeMutableRawBufferPointer) {
        guard window > 1, bytes.count >= window, let base = bytes.baseAddress else { return }
        moves.withUnsafeBufferPointer { moves in
            var end = window - 1
            while end < bytes.count {
                let move = Int(moves[Int(bytes[end - 1]) << 8 | Int(bytes[end])])
                guard move == 0 else {
                    end += move
                    continue
                }
                let start = end - window + 1
                for secret in secrets
                where bytes.count - start >= secret.count && memcmp(base + start, secret, secret.count) == 0 {
                    memset(base + start, Int32(UInt8(ascii: "*")), secret.count)
                }
                end += 1
            }
        }
    }
}
