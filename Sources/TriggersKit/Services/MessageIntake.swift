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

    func run() async throws {
        await cancelWhenGracefulShutdown {
            while !Task.isCancelled {
                do { try await pulse.consume(subscription) { await accept($0) } } catch {
                    if Task.isCancelled { return }
                    Logger.current.error(
                        "messages of a trigger are not received",
                        metadata: ["trigger": "\(trigger.name)", "error": "\(error)"]
                    )
                }
                do { try await Task.sleep(for: .seconds(15)) } catch { return }
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
