// SPDX-License-Identifier: MPL-2.0

/// Why a cron pattern is refused.
public struct CronError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The reason in the words of the parser that hook authors know.
    public let message: String

    /// The reason.
    public var description: String { message }

    init(_ message: String) {
        self.message = message
    }
}
