// SPDX-License-Identifier: MPL-2.0

import Glibc
public import Schedules
import Synchronization

/// The environment of the test run.
public enum TestEnvironment {
    /// The value of a variable, nil when it is absent or empty.
    public static func value(_ name: String) -> String? {
        guard let text = getenv(name).map({ String(cString: $0) }), !text.isEmpty else { return nil }
        return text
    }
}

/// A variable that the tests need is not set.
public struct TestEnvironmentError: Error, CustomStringConvertible {
    /// The variable's name.
    public let variable: String

    /// What to do about it.
    public var description: String { "\(variable) is not set: start the test servers with `make up`" }
}

/// What was waited for did not happen.
public struct EventuallyError: Error, CustomStringConvertible {
    /// What was waited for, and how long.
    public let description: String
}

/// Asks again and again until the answer is yes, and fails after a limit.
public func eventually(
    within limit: Duration = .seconds(90),
    _ what: String = "the condition",
    _ condition: () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + limit
    while true {
        if try await condition() { return }
        guard ContinuousClock.now < deadline else {
            throw EventuallyError(description: "\(what) did not come true within \(limit)")
        }
        try await Task.sleep(for: .milliseconds(10))
    }
}

/// A clock that tests move by hand.
public final class TestClock: Sendable {
    private let moment: Mutex<Timestamp>

    /// Creates a clock that shows a moment.
    public init(_ start: Timestamp = Timestamp(milliseconds: 1_700_000_000_000)) {
        moment = Mutex(start)
    }

    /// The clock as the code under test wants it.
    public var now: @Sendable () -> Timestamp {
        { self.moment.withLock { $0 } }
    }

    /// Moves the clock forward.
    public func advance(by duration: Duration) {
        moment.withLock { $0 = $0 + duration }
    }
}
