// SPDX-License-Identifier: MPL-2.0

import Schedules
import Synchronization

/// Persons whose tokens were verified a moment ago, by the digests of what brought them.
///
/// The set of an issuer's keys is asked for far less often than once in this time, so a key that is withdrawn is
/// believed no longer for it.
final class KnownPersons: Sendable {
    private struct Entry {
        let person: Person
        let end: Timestamp
    }

    private let entries = Mutex<[[UInt8]: Entry]>([:])
    private let lifetime = Duration.seconds(30)
    private let limit: Int

    init(limit: Int = 1000) {
        self.limit = limit
    }

    func person(_ digest: [UInt8], at now: Timestamp) -> Person? {
        guard let entry = entries.withLock({ $0[digest] }), now < entry.end else { return nil }
        return entry.person
    }

    func remember(_ person: Person, _ digest: [UInt8], at now: Timestamp, leeway: Duration) {
        let end = min(now + lifetime, person.expires + leeway)
        entries.withLock { entries in
            if entries.count >= limit { entries = entries.filter { now < $0.value.end } }
            // More at a time than fit are verified each time.
            if entries.count < limit { entries[digest] = Entry(person: person, end: end) }
        }
    }
}
