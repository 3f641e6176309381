// SPDX-License-Identifier: MPL-2.0

/// Why the database did not do what it was asked.
///
/// The description holds the server's primary message and never a statement, its values or a detail line: those carry data.
public struct PostgresError: Error, Sendable, CustomStringConvertible {
    /// The kind of failure.
    public struct Code: Sendable, Hashable, CustomStringConvertible {
        /// The name of the kind.
        public let description: String

        /// The server cannot be reached or the connection was lost.
        public static let connection = Code(description: "connection")
        /// The server refused a statement; ``PostgresError/sqlState`` tells why.
        public static let server = Code(description: "server")
        /// No connection became free in time, or too many tasks wait already.
        public static let poolExhausted = Code(description: "pool exhausted")
        /// The pool was closed because the process stops.
        public static let poolClosed = Code(description: "pool closed")
        /// The calling task was cancelled.
        public static let cancelled = Code(description: "cancelled")
        /// A row does not hold what was asked of it.
        public static let decoding = Code(description: "decoding")
        /// The tables do not fit this program.
        public static let migration = Code(description: "migration")
        /// The configuration cannot be used.
        public static let configuration = Code(description: "configuration")
    }

    /// The kind of failure.
    public let code: Code
    /// The five characters with which the server classifies its errors.
    public let sqlState: String?
    /// The name of the constraint that was violated.
    public let constraint: String?
    /// What happened, in words.
    public let message: String

    /// Creates an error.
    public init(_ code: Code, _ message: String, sqlState: String? = nil, constraint: String? = nil) {
        self.code = code
        self.message = message
        self.sqlState = sqlState
        self.constraint = constraint
    }

    /// Whether a row with this key exists already.
    public var isUniqueViolation: Bool { sqlState == "23505" }

    /// Whether concurrent transactions got in each other's way (40001, 40P01).
    public var isSerializationFailure: Bool { sqlState == "40001" || sqlState == "40P01" }

    /// Whether the server was or became unreachable.
    public var isConnectionFailure: Bool {
        guard let sqlState else { return code == .connection }
        return sqlState.hasPrefix("08") || sqlState.hasPrefix("57P")
    }

    /// Whether the same request may succeed a little later.
    public var isRetriable: Bool {
        isSerializationFailure || isConnectionFailure || code == .poolExhausted || sqlState == "53300"
            || sqlState == "55P03"
    }

    /// One line: the kind, the state and the message.
    public var description: String {
        let state = sqlState.map { " \($0)" } ?? ""
        return "postgres \(code)\(state): \(message)"
    }
}
