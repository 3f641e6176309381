// SPDX-License-Identifier: MPL-2.0

/// A step that this process looks at for as long as its lease holds.
public struct StepClaim: Sendable {
    /// The step as it was when it was claimed.
    public let step: Step
    let epoch: Int
    let store: StepStore

    /// Changes the step; nil, and nothing happens, if somebody else has claimed it since.
    ///
    /// A body that calls ``StepTransaction/release()`` ends the claim.
    public func change<R: Sendable>(
        _ body: (inout StepTransaction) async throws -> R
    ) async throws -> (step: Step, result: R)? {
        try await store.change(self, actor: store.announcement.actor, body)
    }

    /// Says that the look failed, and when the next one is.
    func fail(_ error: any Error, pause: Duration) async throws {
        _ = try await change { change in
            if change.step.checkFailures == 0 {
                // What an error says may quote anything, so the audit gets its kind alone.
                change.record("evaluation_error", ["error": .string(String(describing: type(of: error)))])
            }
            change.fail(pause: pause)
        }
    }
}
