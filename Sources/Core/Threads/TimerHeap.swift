// SPDX-License-Identifier: MPL-2.0

/// A binary heap of deadlines, the earliest first.
struct TimerHeap: Sendable {
    private var entries: [(deadline: UInt64, key: UInt64)] = []

    /// The number of entries, taken-back timers included.
    var count: Int { entries.count }

    /// The earliest deadline.
    var first: UInt64? { entries.first?.deadline }

    /// Adds a deadline and tells whether it is now the earliest.
    mutating func insert(_ deadline: UInt64, _ key: UInt64) -> Bool {
        entries.append((deadline, key))
        var child = entries.count - 1
        while child > 0 {
            let parent = (child - 1) / 2
            guard entries[child].deadline < entries[parent].deadline else { break }
            entries.swapAt(child, parent)
            child = parent
        }
        return child == 0
    }

    /// Removes the earliest deadline and returns its key.
    mutating func popFirst() -> UInt64? {
        guard let first = entries.first else { return nil }
        let last = entries.removeLast()
        guard !entries.isEmpty else { return first.key }
        entries[0] = last
        sink(from: 0)
        return first.key
    }

    /// Removes every entry whose key satisfies a condition.
    mutating func removeAll(where condition: (UInt64) -> Bool) {
        entries.removeAll { condition($0.key) }
        // A sorted array is a heap.
        entries.sort { $0.deadline < $1.deadline }
    }

    private mutating func sink(from index: Int) {
        var parent = index
        while true {
            var child = 2 * parent + 1
            guard child < entries.count else { return }
            if child + 1 < entries.count, entries[child + 1].deadline < entries[child].deadline { child += 1 }
            guard entries[child].deadline < entries[parent].deadline else { return }
            entries.swapAt(child, parent)
            parent = child
        }
    }
}
