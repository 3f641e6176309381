// SPDX-License-Identifier: MPL-2.0
import CLinux
import Synchronization

/// Gives the system back what a crowd of workers left behind in the heap.
///
/// Asking takes far more memory than waiting. When hundreds ask at once, what their requests freed lies between what stays, and no later
/// request needs it.
final class CrowdMemory: Sendable {
    private let settled = Mutex(0)
    private static let crowd = 200

    /// Looks at how many wait now; cheap unless that has changed much since the last time.
    func settle(_ waiting: Int) {
        let hasChanged = settled.withLock { settled in
            guard abs(waiting - settled) >= Self.crowd else { return false }
            settled = waiting
            return true
        }
        if hasChanged { _ = malloc_trim(0) }
    }
}
