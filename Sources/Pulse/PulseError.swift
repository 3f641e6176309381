// SPDX-License-Identifier: MPL-2.0

/// A failure of the broker, of the way to it, or of what was asked of it.
public struct PulseError: Error, Sendable, Hashable {
    /// What kind of failure it is.
    public let code: Code

    /// What failed, on what, and why, in one line.
    public let message: String

    /// Creates an error.
    public init(_ code: Code, _ message: String) {
        self.code = code
        self.message = message
    }

    /// Whether the same call may succeed later without anybody changing anything.
    public var isRetriable: Bool {
        switch code {
        case .connectionLost, .timeout, .nacked, .locked, .overloaded, .brokerFailure: true
        default: false
        }
    }
}

extension PulseError {
    /// The kind of a failure.
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        private enum Value: String {
            case notFound, accessRefused, preconditionFailed, locked, connectionLost, timeout, nacked, unroutable
            case invalidArgument, overloaded, brokerFailure, cancelled, closed
        }

        private let value: Value

        /// The queue or exchange does not exist (404).
        public static let notFound = Code(value: .notFound)
        /// The user lacks the permission, or the credentials were refused (403).
        public static let accessRefused = Code(value: .accessRefused)
        /// The object exists with other properties, or the broker declines the request as it is (406).
        public static let preconditionFailed = Code(value: .preconditionFailed)
        /// Another connection owns the exclusive queue (405).
        public static let locked = Code(value: .locked)
        /// The connection broke and the operation cannot be repeated on the next one.
        public static let connectionLost = Code(value: .connectionLost)
        /// The broker did not answer in time; a message may have been delivered nevertheless.
        public static let timeout = Code(value: .timeout)
        /// The broker took the message but could not keep it.
        public static let nacked = Code(value: .nacked)
        /// No queue was bound for a message that demanded one.
        public static let unroutable = Code(value: .unroutable)
        /// A name is too long, a number out of range, a body too large.
        public static let invalidArgument = Code(value: .invalidArgument)
        /// Too much is waiting already: messages, or channels of this connection.
        public static let overloaded = Code(value: .overloaded)
        /// Any other refusal of the broker.
        public static let brokerFailure = Code(value: .brokerFailure)
        /// The calling task was cancelled.
        public static let cancelled = Code(value: .cancelled)
        /// The connection object was shut down.
        public static let closed = Code(value: .closed)

        /// The name of the kind.
        public var description: String { value.rawValue }
    }
}

extension PulseError: CustomStringConvertible {
    /// The message.
    public var description: String { message }
}

extension PulseError {
    /// The error for a channel or connection the broker closed while `action` was under way.
    init(replyCode: Int, text: String, during action: String) {
        let code: Code =
            switch replyCode {
            case 403: .accessRefused
            case 404: .notFound
            case 405: .locked
            case 406: .preconditionFailed
            default: .brokerFailure
            }
        self.init(code, "cannot \(action): \(replyCode) \(text)")
    }
}
