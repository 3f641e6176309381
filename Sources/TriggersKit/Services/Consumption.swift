// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// Whether the queues of triggers are consumed by this process.
final class Consumption: Sendable {
    /// That some are not.
    struct NotReady: Error, CustomStringConvertible {
        let description: String
    }

    /// The queues that are not, and why.
    private let missing: Mutex<[String: String]>

    /// Begins with queues that nobody has consumed yet.
    init(_ queues: [String]) {
        missing = Mutex(Dictionary(queues.map { ($0, "it is not consumed yet") }) { $1 })
    }

    /// Notes that a queue exists and is consumed.
    func began(_ queue: String) { missing.withLock { $0[queue] = nil } }

    /// Notes that a queue is not consumed.
    func failed(_ queue: String, _ reason: String) { missing.withLock { $0[queue] = reason } }

    /// Throws unless all queues are consumed; says which are not.
    func check() throws(NotReady) {
        let missing = missing.withLock { $0 }
        guard !missing.isEmpty else { return }
        let list = missing.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
        throw NotReady(description: list.joined(separator: "; "))
    }
}
