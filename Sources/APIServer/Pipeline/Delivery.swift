// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// What is to be done if the answer to a request cannot be sent.
final class Delivery: Sendable {
    private let undo = Mutex<(@Sendable () async -> Void)?>(nil)

    /// Whether anything would have to be undone.
    var isWatched: Bool { undo.withLock { $0 != nil } }

    func watch(_ body: @escaping @Sendable () async -> Void) {
        undo.withLock { $0 = body }
    }

    /// Undoes what the answer would have told, once.
    func fail() async {
        let body = undo.withLock { undo in
            defer { undo = nil }
            return undo
        }
        await body?()
    }
}
