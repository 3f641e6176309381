// SPDX-License-Identifier: MPL-2.0

/// What to start, with what, and how long to bear it.
public struct ProcessRequest: Sendable {
    /// The program and its arguments; the program is looked up in `PATH` when it has no slash.
    public var arguments: [String]
    /// The whole environment of the program.
    public var environment: [String: String]
    /// Descriptors that the program gets as 3, 4, …; all others of ours are closed for it.
    public var descriptors: [Int32] = []
    /// Where both its outputs go, in the order in which they were written.
    public var output: OutputLog
    /// How long the program may run, counted from its start.
    public var timeLimit: Duration?
    /// How long after SIGTERM the rest is killed.
    public var stopGrace: Duration = .seconds(1)
    /// How long to read on for output once the program itself is gone.
    public var drainTimeout: Duration = .seconds(5)
    /// How the program is confined, if it is.
    public var sandbox: Sandbox?
    /// Which processes without a living parent belong to this program.
    public var orphans: OrphanRule = .all

    /// Asks for a program with an environment and a log.
    public init(_ arguments: [String], environment: [String: String], output: OutputLog) {
        self.arguments = arguments
        self.environment = environment
        self.output = output
    }

    /// The number under which the program finds the descriptor at this index.
    public static func childDescriptor(_ index: Int) -> Int32 { 3 + Int32(index) }
}

/// Which processes handed to us by their dying parents are counted as left behind by a program.
public enum OrphanRule: Sendable, Hashable {
    /// Everything that falls to this process: right when it runs one program at a time.
    case all
    /// Only those whose environment holds all of these `NAME=value` entries.
    case marked([String])
}

/// How a program ended.
public enum ProcessStatus: Sendable, Hashable {
    /// It ended by itself with this code.
    case exited(Int32)
    /// This signal ended it.
    case signalled(Int32)
}

/// What there is to say about a program that is over.
public struct ProcessOutcome: Sendable, Hashable {
    /// Why it ended.
    public enum Ending: Sendable, Hashable {
        /// It came to an end of its own.
        case natural
        /// It used up its time.
        case timeLimit
        /// We were asked to stop it.
        case stopped
    }

    /// How the program itself ended.
    public let status: ProcessStatus
    /// Why it ended.
    public let ending: Ending
    /// Whether it left processes behind that had to be ended.
    public let hadLeftovers: Bool
    /// Whether some of these could not be ended at all.
    public let hasSurvivors: Bool
    /// Start to end, without the wait for remaining output.
    public let duration: Duration
}
