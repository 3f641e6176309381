// SPDX-License-Identifier: MPL-2.0
import Core
import Logging
import Postgres
import ServiceLifecycle
import Synchronization
import Taskcluster

/// Tells other instances on the same database about new work, and hears from them.
///
/// Notifications go out on a connection of their own after the commit, at most one per queue every 30 ms: inside the
/// transactions they would make commits wait for each other.
final class WakeBridge: Service {
    private static let channel = "tcl_pending"

    private let pool: PostgresPool
    private let dispatch: ClaimDispatch
    private let instance = Slugid.make()
    private let noted = Mutex<Set<String>>([])
    private let hasNotes = Signal()

    init(pool: PostgresPool, dispatch: ClaimDispatch) {
        self.pool = pool
        self.dispatch = dispatch
    }

    /// Notes that a queue has new work.
    func note(_ taskQueueID: String) {
        let isFirst = noted.withLock { noted in
            noted.insert(taskQueueID)
            return noted.count == 1
        }
        if isFirst { hasNotes.notify() }
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await withTaskGroup(of: Void.self) { group in
                group.addTask { await self.tell() }
                group.addTask { await self.listen() }
                await group.next()
                group.cancelAll()
            }
        }
    }

    private func tell() async {
        while !Task.isCancelled {
            guard await hasNotes.wait(timeout: .seconds(600)) else { continue }
            // What else becomes pending in this moment shares the notification.
            guard (try? await Task.sleep(for: .milliseconds(30))) != nil else { return }
            let queues = noted.withLock { noted in
                defer { noted = [] }
                return noted
            }
            guard !queues.isEmpty else { continue }
            let payloads = queues.map { "\(instance) \($0)" }
            do {
                _ = try await pool.query(
                    "select pg_notify(\(Self.channel), payload) from unnest(\(payloads)::text[]) as payload"
                )
            } catch {
                // Their probes find the work a little later.
                Logger.current.debug("other instances were not told of new work", metadata: ["error": "\(error)"])
            }
        }
    }

    private func listen() async {
        for await notification in pool.notifications(on: [Self.channel]) {
            switch notification {
            case .notification(_, let payload):
                let words = payload.split(separator: " ", maxSplits: 1)
                guard words.count == 2, words[0] != instance else { continue }
                // How much there is to do is not told; every waiter that finds nothing waits on.
                dispatch.wake(String(words[1]), count: 4)
            case .reconnected:
                dispatch.probe()
            }
        }
    }
}
