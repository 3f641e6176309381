// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `ilo_reboot`: resets a machine through its iLO board, and takes the power away where that fails.
package struct ILOReboot: RebootMethod {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "ilo_reboot",
        title: "iLO reset",
        summary: "Resets the machine through its iLO board; off and on where it cannot reset.",
        isDestructive: true,
        controls: [.ilo]
    )

    /// An action without settings of its own.
    package init() {}

    /// The calls.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        let host = try target.control(.ilo).host()
        return ["RESET_SERVER at \(host), else HOST_POWER No, wait 5 s, HOST_POWER Yes"]
    }

    /// Makes the calls.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let control = try context.target.control(.ilo)
        let board = RIBCL(context: context, control: control)
        let name = description.name
        let shown = ["POST", "\(try control.host())/ribcl", "RESET_SERVER"]
        return try await context.attempt(name, control, changes: true, arguments: shown, limit: .seconds(240)) {
            () async throws(ActionError) -> (ActionResult, AttemptEnd) in
            if try await board.power() == .off {
                _ = try await board.send(.on)
                await context.conduct.fulfilPower(context.target)
                return (ActionResult("the machine was off and is switched on"), AttemptEnd(.ok, summary: "switched on"))
            }
            do throws(ActionError) {
                _ = try await board.send(.reset)
                return (
                    ActionResult("the board accepted the reset", isVerified: false), AttemptEnd(.ok, summary: "reset")
                )
            } catch  where error.kind == .other || error.kind == .unsupported {
                try await Self.offAndOn(board)
                return (ActionResult("the power was off and is on again"), AttemptEnd(.ok, summary: "off and on"))
            } catch  where error.kind == .timeout {
                throw error.asUnverified
            }
        }
    }

    private static func offAndOn(_ board: RIBCL) async throws(ActionError) {
        let context = board.context
        try await context.conduct.intendPower(context.target, by: board.control)
        var failure: ActionError?
        do throws(ActionError) {
            _ = try await board.send(.off)
            try await context.pause(.seconds(board.control.setting("delay")?.int ?? 5))
        } catch {
            failure = error
        }
        try await context.uninterrupted { () async throws(ActionError) in
            try await Self.restore(RIBCL(context: context.restoring(), control: board.control))
        }
        await context.conduct.fulfilPower(context.target)
        if let failure { throw failure }
    }

    /// Switches on, five times if need be.
    static func restore(_ board: RIBCL) async throws(ActionError) {
        var last = ActionError(.other, "the machine was not switched on")
        for attempt in 1...5 {
            try await board.context.conduct.checkOwnership()
            do throws(ActionError) {
                _ = try await board.send(.on)
                return
            } catch {
                last = error
            }
            if attempt < 5 { try await board.context.pause(.seconds(2)) }
        }
        throw last
    }
}
