// SPDX-License-Identifier: MPL-2.0

import Schedules
import Testing
import WorkerKit

struct ClaimUpkeepTests {
    private let start = Timestamp(milliseconds: 1_700_000_000_000)

    @Test(arguments: [(1200, 300, 300), (300, 300, 225), (100, 300, 50), (60, 300, 30), (30, 300, 7), (2, 300, 1)])
    func `S35: a claim is renewed well before it ends`(_ remaining: Int, _ interval: Int, _ expected: Int64) {
        let pause = ClaimUpkeep.pause(remaining: .seconds(remaining), interval: .seconds(interval))
        #expect(pause.components.seconds == expected)
    }

    @Test func `S36: an unreachable queue is asked again with growing pauses until the claim ends`() {
        var upkeep = ClaimUpkeep(takenUntil: start + .seconds(1200), interval: .seconds(300), now: start)
        var now = start + .seconds(300)
        #expect(upkeep.step(at: now) == .reclaim)
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            upkeep.failed(.unreachable("500"), now: now)
            #expect(upkeep.step(at: now) == .wait(until: now + .seconds(pause)))
            now = now + .seconds(pause)
            #expect(upkeep.step(at: now) == .reclaim)
        }
        upkeep.renewed(until: now + .seconds(1200), now: now)
        #expect(upkeep.step(at: now) == .wait(until: now + .seconds(300)))
        guard case .lost = upkeep.step(at: now + .seconds(1200)) else {
            Issue.record("a claim that has ended must be lost")
            return
        }
    }

    @Test func `S37: a refused renewal loses the claim for good`() {
        var upkeep = ClaimUpkeep(takenUntil: start + .seconds(1200), interval: .seconds(300), now: start)
        upkeep.failed(.refused("409"), now: start)
        #expect(upkeep.step(at: start) == .lost("409"))
    }

    @Test func `S12: an empty answer that took long is followed by the next request at once`() {
        #expect(ClaimPacing.pause(after: .nothing(after: .seconds(20)), interval: .seconds(10)) == .zero)
        #expect(ClaimPacing.pause(after: .nothing(after: .seconds(1)), interval: .seconds(10)) == .seconds(10))
        #expect(ClaimPacing.pause(after: .failure, interval: .seconds(10)) == .seconds(10))
        #expect(ClaimPacing.pause(after: .work, interval: .seconds(10)) == .zero)
    }

    @Test func `S49: uploads pause longer each time, within known bounds`() {
        let bounds = (2...5).map { attempt in
            [0.0, 1.0].map { TransferSchedule.upload.pause(before: attempt, chance: $0).components.seconds }
        }
        #expect(bounds == [[10, 15], [20, 30], [40, 60], [80, 120]])
    }
}
