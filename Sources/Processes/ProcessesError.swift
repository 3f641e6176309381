// SPDX-License-Identifier: MPL-2.0

import Glibc

/// A process that could not be started, or a log that could not be written.
public struct ProcessesError: Error, Sendable, CustomStringConvertible {
    /// What kind of thing went wrong.
    public struct Code: Hashable, Sendable {
        let name: String

        /// The program is missing, not executable, or its interpreter is.
        public static let spawn = Code(name: "spawn")
        /// A file, pipe or descriptor could not be opened.
        public static let file = Code(name: "file")
    }

    /// What kind of thing went wrong.
    public let code: Code
    /// One line for a person.
    public let message: String
    /// The system's error number, where there was one.
    public let systemError: Int32

    /// Describes a failed system call by what it was for; the number defaults to the thread's latest.
    public init(_ code: Code, _ what: String, systemError: Int32? = nil) {
        let systemError = systemError ?? errno
        self.code = code
        self.systemError = systemError
        message = "\(what): \(String(cString: strerror(systemError)))"
    }

    /// The message.
    public var description: String { message }
}
