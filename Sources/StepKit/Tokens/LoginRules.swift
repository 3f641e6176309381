// SPDX-License-Identifier: MPL-2.0

public import Schedules

/// How good a login has to be for somebody to sign.
public struct LoginRules: Sendable {
    /// Whether a second factor is demanded.
    public var requiresSecondFactor: Bool
    /// How long ago the login may be, in seconds; nil does not ask.
    public var longestLogin: Int?

    /// Describes a login.
    public init(requiresSecondFactor: Bool, longestLogin: Int?) {
        self.requiresSecondFactor = requiresSecondFactor
        self.longestLogin = longestLogin
    }

    /// Refuses people whose login is not good enough.
    public func check(_ person: Person, now: Timestamp) throws(StepProblem) {
        if requiresSecondFactor, !person.usedSecondFactor { throw stepUp("A second factor is needed to sign") }
        guard let longestLogin else { return }
        guard let login = person.authenticated, now - login <= .seconds(longestLogin) else {
            throw stepUp("The login is too old to sign")
        }
    }

    private func stepUp(_ text: String) -> StepProblem {
        var challenge = "Bearer error=\"insufficient_user_authentication\", acr_values=\"mfa\""
        if let longestLogin { challenge += ", max_age=\"\(longestLogin)\"" }
        return StepProblem(
            401,
            "mfa_required",
            text,
            members: ["description": .string(text)],
            headers: ["WWW-Authenticate": challenge]
        )
    }
}
