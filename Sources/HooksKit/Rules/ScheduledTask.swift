// SPDX-License-Identifier: MPL-2.0

import Crypto
import Schedules
import Taskcluster

/// The identity of the task that an instant of a schedule makes.
enum ScheduledTask {
    /// The id of the task for an instant, the same whenever and by whomever it is computed.
    ///
    /// The seed is a secret of the hook, so that nobody can tell the ids of coming tasks and take them first.
    static func id(seed: String, name: HookName, due: Timestamp) -> String {
        let text = "\(name) \(due.iso8601)"
        let code = HMAC<SHA256>.authenticationCode(
            for: Array(text.utf8),
            using: SymmetricKey(data: Array(seed.utf8))
        )
        var generator = ByteGenerator(bytes: Array(code))
        return Slugid.make(using: &generator)
    }

    /// The key under which an instant of a hook is accepted once.
    static func key(name: HookName, due: Timestamp) -> String {
        "schedule \(name) \(due.iso8601)"
    }

    /// Hands out given bytes as if they were random.
    private struct ByteGenerator: RandomNumberGenerator {
        var bytes: [UInt8]

        mutating func next() -> UInt64 {
            let word = bytes.prefix(8).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            bytes.removeFirst(min(8, bytes.count))
            return word
        }
    }
}
