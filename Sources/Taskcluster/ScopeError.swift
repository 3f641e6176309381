// SPDX-License-Identifier: MPL-2.0

/// Why a scope, a scope template or a role cannot be used.
public struct ScopeError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What kind of mistake it was.
    public enum Code: String, Sendable, Hashable {
        /// A template is not written in the template language.
        case invalidTemplate
        /// A template names a parameter nobody gave, or one of another type.
        case badParameter
    }

    /// What kind of mistake it was.
    public let code: Code
    /// One sentence for people.
    public let message: String

    /// An error with its code and sentence.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// The message.
    public var description: String { message }
}
