// SPDX-License-Identifier: MPL-2.0
import JSON
import Schedules
import Synchronization
import Taskcluster
import Testing

@testable import LocalTaskclusterKit

/// Claims that whoever looks first may take.
private final class Shelf: Sendable {
    private let claims = Mutex<[TaskClaim]>([])

    func put(_ claim: TaskClaim) { claims.withLock { $0 = [claim] } }

    func take() -> [TaskClaim] {
        claims.withLock { claims in
            defer { claims = [] }
            return claims
        }
    }
}

@Suite(.timeLimit(.minutes(5)))
struct ClaimDispatchTests {
    private let dispatch = ClaimDispatch()

    private func claim() -> TaskClaim {
        let now = Timestamp.now()
        let status = TaskStatus(
            taskID: Slugid.make(),
            taskQueueID: "local/wt",
            schedulerID: "-",
            projectID: "none",
            taskGroupID: Slugid.make(),
            priority: .lowest,
            deadline: now,
            expires: now,
            retries: 5
        )
        return TaskClaim(
            status: status,
            runID: 0,
            worker: WorkerName(group: "g", id: "w"),
            takenUntil: now,
            definition: "{}",
            scopes: [],
            claimID: Slugid.make()
        )
    }

    private func waitUntilWaiting(_ count: Int) async throws {
        while dispatch.waiting < count { try await Task.sleep(for: .milliseconds(5)) }
    }

    @Test func `Q37: of a hundred waiters one gets the one task`() async throws {
        let shelf = Shelf()
        try await withThrowingTaskGroup(of: Int.self) { group in
            for _ in 0..<100 {
                group.addTask { [dispatch] in
                    do {
                        return try await dispatch.claim(from: "local/wt", within: .seconds(60)) { shelf.take() }.count
                    } catch is CancellationError {
                        return 0
                    }
                }
            }
            try await waitUntilWaiting(100)
            shelf.put(claim())
            dispatch.wake("local/wt", count: 1)
            let first = try await group.next()
            #expect(first == 1)
            #expect(dispatch.waiting == 99)
            group.cancelAll()
            let others = try await group.reduce(0, +)
            #expect(others == 0)
        }
    }

    @Test func `Q38: who hung up does not use up a wake-up`() async throws {
        let shelf = Shelf()
        let gone = Task { [dispatch] in
            try await dispatch.claim(from: "local/wt", within: .seconds(20)) { shelf.take() }
        }
        try await waitUntilWaiting(1)
        let next = Task { [dispatch] in
            try await dispatch.claim(from: "local/wt", within: .seconds(20)) { shelf.take() }
        }
        try await waitUntilWaiting(2)
        gone.cancel()
        let cancelled = await gone.result
        #expect(throws: CancellationError.self) { try cancelled.get() }
        shelf.put(claim())
        dispatch.wake("local/wt", count: 1)
        #expect(try await next.value.count == 1)
    }

    @Test func `a waiter that fails passes its wake-up on`() async throws {
        struct Failure: Error {}
        let shelf = Shelf()
        let failing = Task { [dispatch] in
            try await dispatch.claim(from: "local/wt", within: .seconds(20)) {
                guard let claim = shelf.take().first else { return [] }
                shelf.put(claim)
                throw Failure()
            }
        }
        try await waitUntilWaiting(1)
        let next = Task { [dispatch] in
            try await dispatch.claim(from: "local/wt", within: .seconds(20)) { shelf.take() }
        }
        try await waitUntilWaiting(2)
        shelf.put(claim())
        dispatch.wake("local/wt", count: 1)
        await #expect(throws: Failure.self) { try await failing.value }
        #expect(try await next.value.count == 1)
    }

    @Test func `nothing is kept of queues that nobody asks about any more`() async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<50 {
                group.addTask { [dispatch] in
                    let found = try await dispatch.claim(from: "local/wt\(number)", within: .milliseconds(number)) {
                        []
                    }
                    #expect(found.isEmpty)
                }
            }
            try await group.waitForAll()
        }
        dispatch.wake("local/never", count: 3)
        #expect(dispatch.isForgetful)
    }

    @Test func `at the end every waiter is let go and nobody waits any more`() async throws {
        let dispatch = dispatch
        var waiting: [Task<[TaskClaim], any Error>] = []
        for number in 0..<5 {
            waiting.append(Task { try await dispatch.claim(from: "local/wt\(number)", within: .seconds(600)) { [] } })
        }
        try await waitUntilWaiting(5)
        dispatch.close()
        for each in waiting { #expect(try await each.value.isEmpty) }
        #expect(try await dispatch.claim(from: "local/wt", within: .seconds(600)) { [] }.isEmpty)
    }
}
