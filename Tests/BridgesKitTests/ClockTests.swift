// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Schedules
import TestSupport
import Testing

@testable import BridgesKit

@Suite(.timeLimit(.minutes(5)))
struct ClockTests {
    private static let noon = Timestamp(milliseconds: 1_792_670_400_000)

    private func publisher(_ world: BridgesWorld, _ clock: TestClock, catchUp: Duration = .seconds(3600))
        -> ClockPublisher
    {
        let exchange = BridgeExchange.name("clock", namespace: world.namespace)
        return ClockPublisher(
            store: ClockStore(pool: world.pool, outbox: world.outbox, exchange: exchange),
            catchUp: catchUp,
            now: clock.now
        )
    }

    @Test func `the first start announces the next minute, and each minute comes once`() async throws {
        try await BridgesWorld.with([], servers: 0, exchanges: ["clock"]) { world in
            let clock = TestClock(Self.noon + .seconds(20))
            let publisher = publisher(world, clock)
            #expect(try await publisher.announce().announced.isEmpty)
            clock.advance(by: .seconds(39))
            #expect(try await publisher.announce().announced.isEmpty)
            clock.advance(by: .seconds(1))
            #expect(try await publisher.announce().announced.map(\.start) == [Self.noon + .seconds(60)])
            #expect(try await publisher.announce().announced.isEmpty)
            #expect(try await world.relay() == 1)
            let message = try #require(try await world.received(1).first)
            #expect(message.routingKey == "time.2026.10.22.thursday.12.01")
            #expect(try message.json()["time"] == "2026-10-22T12:01:00.000Z")
        }
    }

    @Test func `several processes announce every minute once between them`() async throws {
        try await BridgesWorld.with([], servers: 0, exchanges: ["clock"]) { world in
            let clock = TestClock(Self.noon)
            let publishers = (0..<3).map { _ in publisher(world, clock) }
            for _ in 0..<20 {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for publisher in publishers { group.addTask { try await publisher.announce() } }
                    try await group.waitForAll()
                }
                clock.advance(by: .seconds(60))
            }
            // The twentieth minute is over, and nobody has looked at the next one.
            #expect(try await world.relay() == 19)
            let times = try await world.received(19).map { try $0.json()["time"]?.string ?? "" }
            #expect(times == (1...19).map { (Self.noon + .seconds(60 * $0)).iso8601 })
        }
    }

    @Test func `missed minutes are announced up to the catch-up, older ones are counted`() async throws {
        try await BridgesWorld.with([], servers: 0, exchanges: ["clock"]) { world in
            let clock = TestClock(Self.noon)
            let publisher = publisher(world, clock, catchUp: .seconds(600))
            _ = try await publisher.announce()
            clock.advance(by: .seconds(60))
            #expect(try await publisher.announce().announced.count == 1)
            clock.advance(by: .seconds(300))
            #expect(try await publisher.announce() == .init(announced: minutes(2...6), skipped: 0))
            clock.advance(by: .seconds(3600))
            // Minutes 7 to 55 are more than ten minutes old at minute 66.
            #expect(try await publisher.announce() == .init(announced: minutes(56...66), skipped: 49))
        }
    }

    @Test func `a clock that is set back repeats nothing`() async throws {
        try await BridgesWorld.with([], servers: 0, exchanges: ["clock"]) { world in
            let clock = TestClock(Self.noon)
            let publisher = publisher(world, clock)
            _ = try await publisher.announce()
            clock.advance(by: .seconds(600))
            #expect(try await publisher.announce().announced.count == 10)
            clock.advance(by: .zero - .seconds(400))
            #expect(try await publisher.announce().announced.isEmpty)
            clock.advance(by: .seconds(460))
            #expect(try await publisher.announce().announced == minutes(11...11))
        }
    }

    @Test func `without catch-up only the present minute counts`() async throws {
        try await BridgesWorld.with([], servers: 0, exchanges: ["clock"]) { world in
            let clock = TestClock(Self.noon)
            let publisher = publisher(world, clock, catchUp: .zero)
            _ = try await publisher.announce()
            clock.advance(by: .seconds(600))
            #expect(try await publisher.announce().announced == minutes(10...10))
        }
    }

    @Test func `rows of minutes long gone are removed`() async throws {
        try await BridgesWorld.with([], servers: 0, exchanges: ["clock"]) { world in
            let clock = TestClock(Self.noon)
            let publisher = publisher(world, clock, catchUp: .zero)
            _ = try await publisher.announce()
            for _ in 0..<5 {
                clock.advance(by: .seconds(2 * 86_400))
                _ = try await publisher.announce()
            }
            #expect(try await world.count("minutes") == 1)
        }
    }

    private func minutes(_ range: ClosedRange<Int>) -> [ClockMinute] {
        range.map { ClockMinute(containing: Self.noon + .seconds(60 * $0)) }
    }
}
