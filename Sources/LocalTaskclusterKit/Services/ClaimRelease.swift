// SPDX-License-Identifier: MPL-2.0
import ServiceLifecycle

/// Sends waiting workers away when the process is asked to stop, so that they do not hold it up.
struct ClaimRelease: Service {
    let dispatch: ClaimDispatch

    func run() async throws {
        do {
            try await gracefulShutdown()
        } catch is CancellationError {
            // Cancelled instead: the waiters are let go all the same.
        }
        dispatch.close()
    }
}
