// SPDX-License-Identifier: MPL-2.0

import Glibc
public import Schedules
import Synchronization

/// The time zones that the system knows: a directory of zone files, as the package tzdata installs it.
///
/// What was read is kept for an hour, so that an update of the package is noticed without a restart.
public final class TimeZoneFiles: Sendable {
    /// The zones of this machine: those in the directory `TZDIR` names, else the usual one.
    public static let system = TimeZoneFiles(
        directory: getenv("TZDIR").map { String(cString: $0) } ?? "/usr/share/zoneinfo"
    )

    private let directory: String
    private let known = Mutex<[String: (rules: TimeZoneRules, until: ContinuousClock.Instant)]>([:])

    /// The zones in a directory.
    public init(directory: String) {
        self.directory = directory
    }

    /// The rules of a zone such as `Europe/Berlin`.
    public func rules(of name: String) throws(TimeZoneError) -> TimeZoneRules {
        if name == "UTC" { return .utc }
        let now = ContinuousClock.now
        if let known = known.withLock({ $0[name] }), known.until > now { return known.rules }
        guard TimeZoneRules.isName(name) else { throw TimeZoneError("no name of a time zone") }
        let rules = try TimeZoneRules(name: name, contents: contents("\(directory)/\(name)"))
        known.withLock { $0[name] = (rules, now + .seconds(3600)) }
        return rules
    }

    /// The largest file that can be a zone's; the real ones have a few thousand bytes.
    private static let largest = 1 << 20

    private func contents(_ path: String) throws(TimeZoneError) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw TimeZoneError("unknown time zone") }
        defer { close(descriptor) }
        var contents: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 14)
        while contents.count < Self.largest {
            let count = read(descriptor, &buffer, buffer.count)
            guard count >= 0 else { throw TimeZoneError("unknown time zone") }
            if count == 0 { break }
            contents += buffer[..<count]
        }
        return contents
    }
}
