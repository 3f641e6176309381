// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import Metrics
import Postgres
import Pulse
import ServiceLifecycle

/// Consumes the messages that one trigger is about, and acknowledges each when it is written down.
struct MessageIntake: Service {
    let trigger: Trigger
    let subscription: PulseSubscription
    let pulse: PulseConnection
    let runs: RunStore
    let letters: LetterStore
    let wake: Signal
    let uses: UseStore
    let consumption: Consumption

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var subscription = subscription
            let queue = subscription.queue.name
            subscription.onConsuming = { consumption.began(queue) }
            while !Task.isCancelled {
                do {
                    // Before the queue is there, so that nobody takes it away from under our feet.
                    try await uses.note(trigger.uses(subscription))
                    try await pulse.consume(subscription) { await accept($0) }
                } catch {
                    if Task.isCancelled { return }
                    consumption.failed(queue, "\(error)")
                    Logger.current.error(
                        "messages of a trigger are not received",
                        metadata: ["trigger": "\(trigger.name)", "error": "\(error)"]
                    )
                }
                do { try await Task.sleep(for: .seconds(5)) } catch { return }
            }
        }
    }

    /// Deals with a delivery for as long as it takes; while the database is away the message waits.
    func accept(_ delivery: PulseDelivery) async -> PulseDisposition {
        var attempt = 1
        while true {
            do { return try await acceptOnce(delivery) } catch {
                if Task.isCancelled { return .requeue }
                if attempt == 1 {
                    Logger.current.error(
                        "a message of a trigger waits for the database",
                        metadata: ["trigger": "\(trigger.name)", "error": "\(error)"]
                    )
                }
                attempt += 1
                do { try await Task.sleep(for: RetryPolicy.reconnect.delay(before: attempt)) } catch { return .requeue }
            }
        }
    }

    private func acceptOnce(_ delivery: PulseDelivery) async throws -> PulseDisposition {
        let sightings: [Sighting]
        do { sightings = try MessageReading.sightings(delivery.body, for: trigger.source) } catch {
            return try await refuse(delivery, error.description)
        }
        let added = try await runs.add(sightings, for: trigger)
        note(sightings.isEmpty ? "filtered" : added > 0 ? "accepted" : "duplicate")
        if added > 0 { wake.notify() }
        return .ack
    }

    private func refuse(_ delivery: PulseDelivery, _ error: String) async throws -> PulseDisposition {
        guard try await letters.note(delivery, of: trigger.name, error: error) else {
            note("unread")
            return .requeue
        }
        Counter(label: "triggers_dead_letters_total", dimensions: [("trigger", trigger.name)]).increment()
        Logger.current.warning(
            "a message became a dead letter",
            metadata: ["trigger": "\(trigger.name)", "error": "\(error)", "routingKey": "\(delivery.routingKey)"]
        )
        return .ack
    }

    private func note(_ outcome: String) {
        Counter(
            label: "triggers_messages_total",
            dimensions: [("trigger", trigger.name), ("outcome", outcome)]
        ).increment()
    }
}
