// SPDX-License-Identifier: MPL-2.0

package import APIServer
import Core
import JSON
package import Pulse
import Schedules
import ServiceLifecycle

/// The exchanges of roller, and what goes through them.
package struct RollerExchanges: Sendable, Hashable {
    /// The middle part of the exchanges' names.
    package let namespace: String

    package init(namespace: String) {
        self.namespace = namespace
    }

    /// Tells workers to look for work; the message itself decides nothing.
    package var dispatch: String { "exchange/\(namespace)/v1/roller-dispatch" }
    /// Tells everybody how jobs go.
    package var events: String { "exchange/\(namespace)/v1/roller-events" }

    /// The queue that the workers of a pool share.
    package func jobQueue(pool: String) -> String { "queue/\(namespace)/roller/jobs/\(pool)" }

    /// The message that wakes a worker of the job's pool.
    package func dispatchMessage(_ job: Job) -> PulseMessage {
        let word = job.priority > 50 ? "high" : job.priority < 50 ? "low" : "normal"
        return PulseMessage(
            exchange: dispatch,
            routingKey: "job.\(job.pool).\(word)",
            payload: ["jobId": .string(job.id)]
        )
    }

    /// The message that tells the worker of a running job to stop at the next safe point.
    package func cancelMessage(_ job: Job) -> PulseMessage {
        PulseMessage(
            exchange: dispatch,
            routingKey: "cancel.\(job.pool)",
            payload: ["jobId": .string(job.id)]
        )
    }

    /// The announcement of a job's state.
    package func eventMessage(_ job: Job, machine: String?) -> PulseMessage {
        PulseMessage(
            exchange: events,
            routingKey: "\(job.taskName).\(Self.word(machine)).\(job.status.rawValue)",
            payload: .object(Self.payload(job, machine: machine))
        )
    }

    static func payload(_ job: Job, machine: String?) -> JSONObject {
        var payload: JSONObject = [
            "version": 1,
            "taskId": .string(job.id),
            "taskName": .string(job.taskName),
            "status": .string(job.status.rawValue),
            "state": .string(job.state.rawValue),
            "workerId": .string(job.worker.workerID),
            "dryRun": JSONValue(job.isDryRun),
            "created": .string(job.created.iso8601),
        ]
        let optional: [(String, String?)] = [
            ("machine", machine), ("workerGroup", job.worker.workerGroup),
            ("provisionerId", job.worker.provisionerID), ("workerType", job.worker.workerType),
            ("reason", job.reason), ("errorClass", job.errorClass), ("bugUrl", job.bugURL),
            ("started", job.started?.iso8601), ("finished", job.finished?.iso8601),
        ]
        for (name, value) in optional {
            if let value { payload[name] = .string(value) }
        }
        return payload
    }

    /// A word of a routing key: dots would make several of it.
    static func word(_ text: String?) -> String {
        guard let text, !text.isEmpty else { return "_" }
        return String(text.map { $0 == "." || $0 == "*" || $0 == "#" ? "-" : $0 })
    }

    /// What other teams read before they bind a queue.
    package static var references: [ExchangeReference] {
        [
            ExchangeReference(
                exchange: "roller-events",
                name: "jobChanged",
                title: "Job Changed",
                description: """
                    A job was accepted, began, ended or was canceled. The status is the one the API tells; a job that \
                    ended sends no message after that.
                    """,
                routingKey: [
                    .init("taskName", summary: "The task, such as `reboot`."),
                    .init("machine", summary: "The short name of the machine.", required: false),
                    .init("status", summary: "`PENDING`, `RUNNING`, `COMPLETE`, `FAILED` or `CANCELED`."),
                ],
                schema: "v1/job-message.json"
            )
        ]
    }
}

/// Keeps the exchanges of roller declared, so that a broker that was built anew gets them within a minute.
package struct RollerExchangeDeclarations: Service {
    let pulse: PulseConnection
    let exchanges: RollerExchanges

    package init(pulse: PulseConnection, exchanges: RollerExchanges) {
        self.pulse = pulse
        self.exchanges = exchanges
    }

    package func run() async throws {
        try await PeriodicService(name: "exchanges of roller", every: .seconds(60)) {
            for name in [exchanges.dispatch, exchanges.events] { try await pulse.declareExchange(name) }
        }.run()
    }
}
