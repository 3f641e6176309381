// SPDX-License-Identifier: MPL-2.0

package import JSON
package import RollerKit

/// Why an action, or one attempt of it, did not succeed; fit for logs, mails and bugs.
package struct ActionError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of failure, as it appears in jobs and attempts.
    package enum Kind: String, Sendable {
        /// The host or controller does not answer.
        case unreachable
        /// The name of the host cannot be resolved.
        case dns
        /// The time allowed is over.
        case timeout
        /// The other side said no, or is not who it should be.
        case refused
        /// User, password or key are wrong.
        case credentials
        /// An IPMI session could not be opened: wrong credentials look like a full session table.
        case credentialsOrSession = "credentials-or-session"
        /// The certificate is not the expected one.
        case tls
        /// The power distribution unit does not answer.
        case pduUnreachable = "pdu-unreachable"
        /// The outlet does not show what it was set to.
        case unverifiedOutlet = "unverified-outlet"
        /// A program that actions need is missing or may not work here.
        case tooling
        /// The inventory or the settings are wrong.
        case config
        /// The controller cannot do this.
        case unsupported
        /// Every method failed, and so did the filing of a bug.
        case bugFilingFailed = "bug-filing-failed"
        /// The soft limit of the job is over.
        case softTimeLimit = "soft-time-limit"
        /// The hard limit of the job is over.
        case hardTimeLimit = "hard-time-limit"
        /// The job belongs to somebody else by now.
        case lost
        /// Somebody asked the job to stop.
        case canceled
        /// It could not be established whether the action had its effect.
        case unverified
        /// Anything else.
        case other

        /// The word in `error_class`.
        package var name: String { rawValue }
    }

    /// The kind of failure.
    package let kind: Kind
    /// One line without secrets.
    package let message: String
    /// What is written into the attempt.
    package let outcome: AttemptOutcome
    /// Whether the same call may succeed a little later.
    package let isRetriable: Bool
    /// What programs should know about it.
    package var details: JSONObject = [:]
    /// The bug that was filed about it.
    package var bugURL: String?

    /// A failure; its outcome follows from the kind where none is given.
    package init(_ kind: Kind, _ message: String, outcome: AttemptOutcome? = nil, isRetriable: Bool = false) {
        self.kind = kind
        self.message = message
        self.isRetriable = isRetriable
        self.outcome =
            outcome
            ?? {
                switch kind {
                case .timeout, .softTimeLimit, .hardTimeLimit: .timeout
                case .refused: .refused
                case .unverified: .unverified
                default: .failed
                }
            }()
    }

    /// The same failure of which one cannot tell whether it had an effect.
    package var asUnverified: ActionError { ActionError(kind, message, outcome: .unverified) }

    /// Whether the job must end here: no other method may be tried.
    package var endsJob: Bool { [.lost, .canceled, .softTimeLimit, .hardTimeLimit].contains(kind) }

    /// The kind and the message.
    package var description: String { "\(kind.name): \(message)" }
}
