// SPDX-License-Identifier: MPL-2.0

/// A schedule with everything that decides when it fires: patterns, time zone and jitter.
public struct FiringPlan: Sendable, Hashable {
    /// An instant of a schedule.
    public struct Due: Sendable, Hashable {
        /// The instant that the patterns name; it identifies the fire.
        public let instant: Timestamp
        /// When to fire: the same, or later by the jitter.
        public let fireAt: Timestamp

        /// An instant and the time of its fire.
        public init(instant: Timestamp, fireAt: Timestamp) {
            self.instant = instant
            self.fireAt = fireAt
        }

        /// An instant that fires on time.
        public init(_ instant: Timestamp) {
            self.init(instant: instant, fireAt: instant)
        }

        /// Never: what a hook without a schedule waits for.
        public static let never = Due(.farFuture)
    }

    /// What becomes of instants that passed while nobody could fire.
    public enum CatchUp: Sendable, Hashable {
        /// The instant that was awaited fires, however late; those after it are skipped.
        case none
        /// Only the newest fires.
        case last
        /// The newest few fire, each for itself.
        case all(limit: Int)

        /// How many of the newest instants fire; nil if it is not the newest that do.
        var newest: Int? {
            switch self {
            case .none: nil
            case .last: 1
            case .all(let limit): Swift.max(1, limit)
            }
        }
    }

    /// A run of instants that do not fire.
    public struct Skipped: Sendable, Hashable {
        /// The oldest.
        public let first: Timestamp
        /// The newest.
        public let last: Timestamp
        /// How many; of very long runs only that there are at least so many.
        public let count: Int
        /// Whether the count is exact.
        public let isExact: Bool
    }

    /// What is to be done about a schedule at some moment.
    public struct Reckoning: Sendable, Hashable {
        /// The instants to fire, oldest first.
        public let fires: [Due]
        /// The instants to pass over.
        public let skipped: Skipped?
        /// What to wait for next; nil when the schedule has come to its end.
        public let next: Due?
    }

    private let patterns: [CronExpression]
    private let zone: TimeZoneRules
    private let jitter: Int64
    private let seed: UInt64

    /// Makes a plan whose fires are delayed by up to `jitter`, though never as long as until the next instant.
    ///
    /// The seed says whose plan it is; with the instant it decides the delay, so that all who compute it agree.
    public init(patterns: [CronExpression], zone: TimeZoneRules = .utc, jitter: Duration = .zero, seed: String = "") {
        self.patterns = patterns
        self.zone = zone
        self.jitter = Int64(max(.zero, jitter) / .milliseconds(1))
        self.seed = Self.mixed(seed.utf8.reduce(0xCBF2_9CE4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 })
    }

    // MARK: - Instants

    /// The first instant after another; nil without patterns, or when none ever comes.
    public func next(after instant: Timestamp) -> Due? {
        guard let found = nominal(after: instant) else { return nil }
        guard jitter > 0 else { return Due(found) }
        var room = jitter
        if let following = nominal(after: found) { room = min(room, following.milliseconds - found.milliseconds) }
        let delay = Self.mixed(seed ^ UInt64(bitPattern: found.milliseconds)) % UInt64(room)
        return Due(instant: found, fireAt: Timestamp(milliseconds: found.milliseconds + Int64(delay)))
    }

    private func nominal(after instant: Timestamp) -> Timestamp? {
        patterns.compactMap { $0.next(after: instant, in: zone) }.min()
    }

    /// The instants from one time up to but not including another, at most so many.
    public func instants(from start: Timestamp, to end: Timestamp, limit: Int) -> [Timestamp] {
        var found: [Timestamp] = []
        var last = Timestamp(milliseconds: start.milliseconds - 1)
        while found.count < limit, let next = nominal(after: last), next < end {
            found.append(next)
            last = next
        }
        return found
    }

    /// Spreads a number over all bits (the finaliser of SplitMix64).
    private static func mixed(_ number: UInt64) -> UInt64 {
        var z = number &+ 0x9E37_79B9_7F4A_7C15
        z = (z ^ z >> 30) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ z >> 27) &* 0x94D0_49BB_1331_11EB
        return z ^ z >> 31
    }

    // MARK: - Catching up

    /// Beyond this many, missed instants are no longer counted one by one.
    private static let longestCount = 10_000

    /// Decides what to do about an awaited instant that has come, and about those that passed since.
    public func reckon(from due: Due, now: Timestamp, catchUp: CatchUp) -> Reckoning {
        var passed = [due]
        var following = next(after: due.instant)
        while let next = following, next.fireAt <= now {
            guard passed.count < Self.longestCount else {
                return reckonLongRun(passed, now: now, catchUp: catchUp)
            }
            passed.append(next)
            following = self.next(after: next.instant)
        }
        var fires = [due]
        var rest = passed.dropFirst()
        if case .some(let wanted) = catchUp.newest {
            fires = passed.suffix(wanted)
            rest = passed.dropLast(fires.count)
        }
        let skipped = rest.first.flatMap { first in
            rest.last.map { Skipped(first: first.instant, last: $0.instant, count: rest.count, isExact: true) }
        }
        return Reckoning(fires: fires, skipped: skipped, next: following)
    }

    /// Passes over an awaited instant that has come and all others that have, and says what to wait for.
    public func pass(from due: Due, now: Timestamp) -> (skipped: Skipped, next: Due?) {
        let reckoning = reckon(from: due, now: now, catchUp: .last)
        let last = reckoning.fires.last?.instant ?? due.instant
        let skipped = Skipped(
            first: reckoning.skipped?.first ?? last,
            last: last,
            count: (reckoning.skipped?.count ?? 0) + 1,
            isExact: reckoning.skipped?.isExact ?? true
        )
        return (skipped, reckoning.next)
    }

    /// Decides the same when so many instants passed that counting them all would take too long.
    private func reckonLongRun(_ passed: [Due], now: Timestamp, catchUp: CatchUp) -> Reckoning {
        let newest = recent(catchUp.newest ?? 1, since: passed[0], now: now)
        let following = newest.last.flatMap { next(after: $0.instant) }
        guard let wanted = catchUp.newest else {
            let skipped = Skipped(
                first: passed[1].instant,
                last: newest.last?.instant ?? now,
                count: passed.count - 1,
                isExact: false
            )
            return Reckoning(fires: [passed[0]], skipped: skipped, next: following)
        }
        // The run ends right before the first fire; a second is the finest step of a schedule.
        let end = (newest.first?.instant ?? now) - .seconds(1)
        let skipped = Skipped(first: passed[0].instant, last: end, count: passed.count - wanted, isExact: false)
        return Reckoning(fires: newest, skipped: skipped, next: following)
    }

    /// The newest instants whose time has come, found from the present backwards.
    private func recent(_ count: Int, since due: Due, now: Timestamp) -> [Due] {
        var span: Int64 = 60_000
        while true {
            let start = max(due.instant.milliseconds - 1, now.milliseconds - jitter - span)
            var found: [Due] = []
            var last = Timestamp(milliseconds: start)
            while let next = next(after: last), next.fireAt <= now {
                found.append(next)
                last = next.instant
            }
            if found.count >= count || start < due.instant.milliseconds { return found.suffix(count) }
            span *= 4
        }
    }
}
