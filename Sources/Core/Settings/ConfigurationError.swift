// SPDX-License-Identifier: MPL-2.0

/// Everything that is wrong with the configuration, found before anything was started.
public struct ConfigurationError: Error, Sendable, CustomStringConvertible {
    /// One line per problem; each names a variable and says what to do about it.
    public let problems: [String]

    /// Creates an error from lines that each describe one problem.
    public init(problems: [String]) {
        self.problems = problems
    }

    /// All problems, one a line.
    public var description: String { problems.joined(separator: "\n") }
}
