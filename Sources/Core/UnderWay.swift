// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// How many of something a process is at, so that those who gather company know how much to expect.
package final class UnderWay: Sendable {
    private let number = Atomic(0)

    /// Begins with none.
    package init() {}

    /// How many there are at this moment.
    package var count: Int { number.load(ordering: .relaxed) }

    /// One more begins.
    package func begin() {
        number.add(1, ordering: .relaxed)
    }

    /// One of them ends.
    package func end() {
        number.subtract(1, ordering: .relaxed)
    }
}
