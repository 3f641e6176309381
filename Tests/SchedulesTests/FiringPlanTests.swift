// SPDX-License-Identifier: MPL-2.0

import Testing

@testable import Schedules

struct FiringPlanTests {
    private let noon = Timestamp(milliseconds: 1_707_566_400_000)

    private func plan(_ pattern: String, jitter: Duration = .zero, seed: String = "g/h") throws -> FiringPlan {
        FiringPlan(patterns: [try CronExpression(pattern)], jitter: jitter, seed: seed)
    }

    private func minutes(_ fires: [FiringPlan.Due]) -> [Int] {
        fires.map { Int(($0.instant - noon) / .seconds(60)) }
    }

    @Test func `nothing missed: the awaited instant fires and the next is awaited`() throws {
        for catchUp in [FiringPlan.CatchUp.none, .last, .all(limit: 5)] {
            let reckoning = try plan("0 * * * * *").reckon(from: .init(noon), now: noon + .seconds(1), catchUp: catchUp)
            #expect(minutes(reckoning.fires) == [0])
            #expect(reckoning.skipped == nil)
            #expect(reckoning.next?.instant == noon + .seconds(60))
        }
    }

    @Test(arguments: [
        (FiringPlan.CatchUp.none, [0], 1, 10),
        (.last, [10], 0, 9),
        (.all(limit: 3), [8, 9, 10], 0, 7),
        (.all(limit: 100), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0, -1),
    ])
    func `H48: ten instants missed are made up for as the policy says`(
        _ catchUp: FiringPlan.CatchUp,
        _ fires: [Int],
        _ firstSkipped: Int,
        _ lastSkipped: Int
    ) throws {
        let reckoning = try plan("0 * * * * *").reckon(from: .init(noon), now: noon + .seconds(630), catchUp: catchUp)
        #expect(minutes(reckoning.fires) == fires)
        #expect(reckoning.next?.instant == noon + .seconds(660))
        guard lastSkipped >= 0 else {
            #expect(reckoning.skipped == nil)
            return
        }
        let skipped = try #require(reckoning.skipped)
        #expect(skipped.first == noon + .seconds(firstSkipped * 60))
        #expect(skipped.last == noon + .seconds(lastSkipped * 60))
        #expect(skipped.count == lastSkipped - firstSkipped + 1)
        #expect(skipped.isExact)
    }

    @Test func `a year of missed seconds is reckoned without counting them all`() throws {
        let now = noon + .seconds(365 * 86_400)
        let all = try plan("* * * * * *").reckon(from: .init(noon), now: now, catchUp: .all(limit: 3))
        #expect(all.fires.map(\.instant) == [now - .seconds(2), now - .seconds(1), now])
        #expect(all.next?.instant == now + .seconds(1))
        #expect(all.skipped?.isExact == false)
        #expect(all.skipped?.first == noon)
        #expect(all.skipped?.last == now - .seconds(3))
        let none = try plan("* * * * * *").reckon(from: .init(noon), now: now, catchUp: .none)
        #expect(none.fires.map(\.instant) == [noon])
        #expect(none.skipped?.last == now)
    }

    @Test func `jitter is the same for all who compute it, and differs between hooks and instants`() throws {
        let one = try plan("0 0 * * * *", jitter: .seconds(600), seed: "g/one")
        let other = try plan("0 0 * * * *", jitter: .seconds(600), seed: "g/other")
        var delays: Set<Duration> = []
        var last = noon
        for _ in 0..<50 {
            let due = try #require(one.next(after: last))
            #expect(due == one.next(after: last))
            #expect(due.fireAt != other.next(after: last)?.fireAt)
            let delay = due.fireAt - due.instant
            #expect(delay >= .zero && delay < .seconds(600))
            delays.insert(delay)
            last = due.instant
        }
        #expect(delays.count > 45)
    }

    @Test func `jitter never carries a fire beyond the next instant`() throws {
        let plan = try plan("*/5 * * * * *", jitter: .seconds(3600))
        var last = noon
        for _ in 0..<200 {
            let due = try #require(plan.next(after: last))
            #expect(due.fireAt < due.instant + .seconds(5))
            last = due.instant
        }
    }

    @Test func `the instants of a range include its beginning and not its end`() throws {
        let plan = try plan("0 * * * * *")
        let found = plan.instants(from: noon, to: noon + .seconds(180), limit: 10)
        #expect(found == [noon, noon + .seconds(60), noon + .seconds(120)])
        #expect(plan.instants(from: noon, to: noon + .seconds(180), limit: 2).count == 2)
    }

    @Test func `H62: two patterns with the same instant name it once`() throws {
        let patterns = try ["0 * * * * *", "0 */2 * * * *"].map { text throws in try CronExpression(text) }
        let plan = FiringPlan(patterns: patterns)
        #expect(plan.instants(from: noon, to: noon + .seconds(240), limit: 10).count == 4)
    }

    @Test func `passing over everything leaves nothing to fire`() throws {
        let (skipped, next) = try plan("0 * * * * *").pass(from: .init(noon), now: noon + .seconds(150))
        #expect(skipped.first == noon)
        #expect(skipped.last == noon + .seconds(120))
        #expect(skipped.count == 3)
        #expect(next?.instant == noon + .seconds(180))
    }

    @Test func `a plan without patterns waits for nothing`() {
        #expect(FiringPlan(patterns: []).next(after: noon) == nil)
    }
}
