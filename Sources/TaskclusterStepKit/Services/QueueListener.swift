// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Logging
public import Pulse
public import ServiceLifecycle
import Synchronization

/// Hears what the queue says about the groups that are followed.
///
/// Replicas share one queue, which gets a group's messages from the moment somebody follows it. It is a hint; without a
/// broker, groups are listed now and then.
public final class QueueListener: Service {
    private let pulse: PulseConnection
    private let queue: PulseQueue
    private let exchange: String
    private let followed = Mutex<Set<Followed>>([])
    private let heard = Mutex<(@Sendable (String, String?) async throws -> Void)?>(nil)

    private struct Followed: Hashable {
        let group: String
        let task: String?
    }

    /// Listens at the exchanges with this beginning of their names.
    public init(
        pulse: PulseConnection,
        queue name: String? = nil,
        exchanges: String = "exchange/taskcluster-queue/v1/"
    ) {
        self.pulse = pulse
        exchange = exchanges
        queue = PulseQueue(name ?? "queue/\(pulse.namespace)/shipit-taskcluster/groups", maxLength: 100_000)
    }

    /// Says who is told of a group and a task.
    public func tell(_ listener: @escaping @Sendable (_ group: String, _ task: String?) async throws -> Void) {
        heard.withLock { $0 = listener }
    }

    /// Listens until graceful shutdown.
    public func run() async throws {
        let wanted = PulseSubscription(queue: queue, prefetch: 20) { [self] in
            followed.withLock { $0.flatMap { bindings($0) } }
        }
        try await pulse.consume(wanted) { [self] delivery in
            let body = try? delivery.json()
            guard let group = body?["status"]?["taskGroupId"]?.string ?? body?["taskGroupId"]?.string else {
                // Nothing can come of it, however often it is delivered.
                Logger.current.warning("a message of the queue makes no sense")
                return .ack
            }
            try await heard.withLock { $0 }?(group, body?["status"]?["taskId"]?.string)
            return .ack
        }
    }

    private func bindings(_ followed: Followed) -> [PulseBinding] {
        func binding(_ kind: String, _ key: String) -> PulseBinding {
            PulseBinding(exchange: exchange + kind, routingKeyPattern: key)
        }
        // primary, task, run, worker group, worker, provisioner, worker type, scheduler, group
        let ofGroup = "primary.*.*.*.*.*.*.*.\(followed.group).#"
        var list = [
            binding("task-group-resolved", "primary.\(followed.group).#"),
            binding("task-failed", ofGroup), binding("task-exception", ofGroup),
        ]
        // The others that are completed do not matter before the last.
        if let task = followed.task { list.append(binding("task-completed", "primary.\(task).#")) }
        return list
    }

    /// From now on messages about the group arrive, if the broker can be reached.
    func follow(group: String, task: String?) async {
        let new = Followed(group: group, task: task)
        guard !followed.withLock({ $0.contains(new) }) else { return }
        do {
            let bindings = bindings(new)
            // A broker that is away must not hold up the look at the group.
            try await withTimeout(.seconds(2)) { [self] in
                for binding in bindings {
                    try await pulse.bind(
                        queue: queue.name,
                        exchange: binding.exchange,
                        routingKey: binding.routingKeyPattern
                    )
                }
            }
            followed.withLock { _ = $0.insert(new) }
        } catch {
            Logger.current.debug("group not listened to", metadata: ["error": "\(error)"])
        }
    }

    /// The groups that are heard of.
    var groups: Set<String> { followed.withLock { Set($0.map(\.group)) } }

    /// No longer hears of a group.
    func leave(group: String) async {
        let old = followed.withLock { followed in
            let old = followed.filter { $0.group == group }
            followed.subtract(old)
            return old
        }
        for binding in Set(old.flatMap { bindings($0) }) {
            do {
                try await withTimeout(.seconds(5)) { [self] in
                    try await pulse.unbind(
                        queue: queue.name,
                        exchange: binding.exchange,
                        routingKey: binding.routingKeyPattern
                    )
                }
            } catch {
                // A message too many wakes nobody.
                Logger.current.debug("group still listened to", metadata: ["error": "\(error)"])
            }
        }
    }
}
