// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// How many of something a process is at, so that those who gather company know how much to expect.
final class UnderWay: Sendable {
    private let number = Atomic(0)

    var count: Int { number.load(ordering: .relaxed) }

    func begin() {
        number.add(1, ordering: .relaxed)
    }

    func end() {
        number.subtract(1, ordering: .relaxed)
    }
}
