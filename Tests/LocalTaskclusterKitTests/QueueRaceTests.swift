// SPDX-License-Identifier: MPL-2.0
import JSON
import Schedules
import Taskcluster
import Testing

@testable import LocalTaskclusterKit

/// What happens when two want different things of one task at once.
@Suite(.timeLimit(.minutes(10)))
struct QueueRaceTests {
    @Test func `Q49: a reclaim and the expiry of its claim have one winner`() async throws {
        try await QueueFixture.with { queue in
            for _ in 0..<raceRounds {
                let id = try await queue.running()
                let late = queue.start + .seconds(3)
                async let refused = queue.isRefused {
                    _ = try await queue.store.reclaim(taskID: id, run: 0, now: late)
                }
                async let swept: () = { while try await queue.store.expireClaims(now: late) > 0 {} }()
                let (isLate, _) = try await (refused, swept)
                let status = try await queue.store.status(id)
                #expect((status.runs[0].state == .running) != isLate)
                #expect(status.runs.count == (isLate ? 2 : 1))
                _ = try await queue.store.cancelTask(id, now: queue.start)
            }
        }
    }

    @Test func `Q55: of a success and a failure at once one is reported`() async throws {
        try await QueueFixture.with { queue in
            for _ in 0..<raceRounds {
                let id = try await queue.running()
                async let completed = queue.isRefused {
                    _ = try await queue.store.complete(taskID: id, run: 0, as: .completed, now: queue.start)
                }
                async let failed = queue.isRefused {
                    _ = try await queue.store.complete(taskID: id, run: 0, as: .failed, now: queue.start)
                }
                let refusals = try await [completed, failed]
                #expect(refusals.filter { $0 }.count == 1)
                let state = try await queue.store.status(id).state
                #expect(state == (refusals[0] ? "failed" : "completed"))
            }
        }
    }

    @Test func `Q63: twenty reruns at once make one run`() async throws {
        try await QueueFixture.with { queue in
            let id = try await queue.create().taskID
            try await queue.resolve(id)
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<20 { group.addTask { _ = try await queue.store.rerunTask(id, now: queue.start) } }
                try await group.waitForAll()
            }
            #expect(try await queue.store.status(id).runs.count == 2)
            #expect(try await queue.claim(32).count == 1)
        }
    }

    @Test func `Q78: a wide join is scheduled once`() async throws {
        try await QueueFixture.with { queue in
            let required = try await withThrowingTaskGroup(of: [String].self) { group in
                for _ in 0..<16 {
                    group.addTask {
                        var ids: [String] = []
                        for _ in 0..<63 { ids.append(try await queue.running()) }
                        return ids
                    }
                }
                return try await group.reduce(into: []) { $0 += $1 }
            }
            let joined = try await queue.create(
                Slugid.make(),
                ["dependencies": .array(required.map { .string($0) })]
            ).taskID
            try await withThrowingTaskGroup(of: Void.self) { group in
                for lane in 0..<16 {
                    group.addTask {
                        for position in stride(from: lane, to: required.count, by: 16) {
                            _ = try await queue.store.complete(
                                taskID: required[position],
                                run: 0,
                                as: .completed,
                                now: queue.start
                            )
                            if position % 5 == 0 { try await queue.drawAll() }
                        }
                    }
                }
                try await group.waitForAll()
            }
            try await queue.drawAll()
            #expect(required.count > 1000)
            #expect(try await queue.store.status(joined).runs.map(\.state) == [.pending])
            #expect(try await queue.announced(joined).filter { $0 == "task-pending" }.count == 1)
        }
    }

    @Test func `Q65: a running task ends with its deadline and refuses its worker`() async throws {
        try await QueueFixture.with { queue in
            let id = try await queue.running()
            let late = queue.start + .seconds(3600)
            for attempt in 0..<2 {
                #expect(
                    try await queue.isRefused { _ = try await queue.store.reclaim(taskID: id, run: 0, now: late) }
                )
                let refused = try await queue.isRefused {
                    _ = try await queue.store.complete(taskID: id, run: 0, as: .completed, now: late)
                }
                #expect(refused)
                // The claim ended long ago, but the deadline comes first.
                #expect(try await queue.store.expireClaims(now: late) == 0)
                #expect(try await queue.store.handleDeadlines(delay: .zero, now: late) == (attempt == 0 ? 1 : 0))
            }
            let status = try await queue.store.status(id)
            #expect(status.runs.map(\.reasonResolved) == [.deadlineExceeded])
            #expect(try await queue.store.counts("local/wt", now: queue.start).claimed == 0)
        }
    }
}
