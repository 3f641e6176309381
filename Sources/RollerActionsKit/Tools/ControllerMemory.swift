// SPDX-License-Identifier: MPL-2.0

import Synchronization

/// What this process has learned about controllers, where the inventory does not say it yet.
package final class ControllerMemory: Sendable {
    private let suites = Mutex<[String: Int]>([:])

    /// Creates a memory that knows nothing.
    package init() {}

    /// The cipher suite that worked last at a controller.
    func suite(of controllerID: String) -> Int? { suites.withLock { $0[controllerID] } }

    /// Remembers the cipher suite that worked.
    func remember(suite: Int, of controllerID: String) {
        suites.withLock { $0[controllerID] = suite }
    }
}
