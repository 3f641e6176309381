// SPDX-License-Identifier: MPL-2.0

public import WorkerKit

/// What becomes of a task, as the number that scripts and stages of the worker speak in.
///
/// Stages may only raise it: the numerically largest wins.
public struct ResolutionCode: Sendable, Hashable, Comparable {
    /// The number.
    public let number: Int32

    /// Takes a number as it is.
    public init(_ number: Int32) {
        self.number = number
    }

    /// All went well.
    public static let success = ResolutionCode(0)
    /// The script failed.
    public static let failure = ResolutionCode(1)
    /// The worker was told to stop.
    public static let workerShutdown = ResolutionCode(2)
    /// The task asks for something impossible or forbidden.
    public static let malformedPayload = ResolutionCode(3)
    /// Something needed is not there.
    public static let resourceUnavailable = ResolutionCode(4)
    /// The worker itself failed.
    public static let internalError = ResolutionCode(5)
    /// Something passing; another attempt may succeed.
    public static let intermittentTask = ResolutionCode(7)

    private static let names = [
        "worker-shutdown", "malformed-payload", "resource-unavailable", "internal-error", "superseded",
        "intermittent-task",
    ]

    /// The reasons with which a run may end in an exception.
    static let reasons = Set(names)

    /// Orders by number.
    public static func < (first: ResolutionCode, second: ResolutionCode) -> Bool { first.number < second.number }

    /// Raises this code to another one if that is larger.
    public mutating func raise(to other: ResolutionCode) { self = max(self, other) }

    /// What to tell the queue; the operator may give further numbers the meaning of a reason.
    public func resolution(reversed: [Int32: String] = [:]) -> TaskResolution {
        switch number {
        case 0: .completed
        case 1: .failed
        case 2...7: .exception(Self.names[Int(number) - 2])
        default: reversed[number].map { .exception($0) } ?? .failed
        }
    }
}

extension ArtifactUploader.Failure {
    /// The code that an artifact missing from the queue stands for.
    var code: ResolutionCode {
        switch self {
        case .storage: .resourceUnavailable
        case .unreachable: .intermittentTask
        case .refused, .unreadable: .internalError
        case .interrupted: .workerShutdown
        }
    }
}
