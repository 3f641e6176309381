// SPDX-License-Identifier: MPL-2.0

import Glibc
import HTTPClient
import JSON
import Schedules
import TaskclusterClient
import WorkerKit

extension MonitorChecks {
    private var client: TaskclusterClient {
        let source = configuration.credentials
        return TaskclusterClient(
            rootURL: configuration.rootURL,
            credentials: { source.current },
            transport: transport,
            retry: .once
        )
    }

    func queue(_ options: Options) async -> CheckResult {
        let id = configuration.queueID
        let counts: (pending: Int, claimed: Int?)
        do {
            counts = try await self.counts(id)
        } catch {
            return CheckResult("queue", .unknown, "the queue does not tell the length of \(id): \(error.code)")
        }
        var measures = [measure("pending", Double(counts.pending), "", options, "20", "50")]
        var text = "\(counts.pending) pending"
        if let claimed = counts.claimed {
            measures.append(CheckResult.Measure(label: "claimed", value: Double(claimed), unit: "", minimum: 0))
            text += ", \(claimed) claimed"
        }
        if options.looksAtOldest, counts.pending > 0 {
            do {
                let page = try await client.call("queue", "GET", ["task-queues", id, "pending"])
                let times = (page["tasks"]?.array ?? []).compactMap { $0["inserted"]?.string.flatMap { Timestamp($0) } }
                let age = times.min().map { Double((Timestamp.now() - $0).components.seconds) } ?? 0
                measures.append(
                    CheckResult.Measure(
                        label: "oldest",
                        value: max(0, age),
                        unit: "s",
                        warning: CheckRange("900"),
                        critical: CheckRange("3600"),
                        minimum: 0
                    )
                )
                text += ", the oldest for \(Int(age)) s"
            } catch {
                text += ", the oldest unknown (\(error.code))"
            }
        }
        return CheckResult("queue", .ok, "\(text) in \(id)", measures)
    }

    private func counts(_ id: String) async throws(TaskclusterError) -> (pending: Int, claimed: Int?) {
        do throws(TaskclusterError) {
            let answer = try await client.call("queue", "GET", ["task-queues", id, "counts"])
            return (answer["pendingTasks"]?.int ?? 0, answer["claimedTasks"]?.int)
        } catch {
            guard error.status == 403 || error.status == 404 else { throw error }
            let parts = id.split(separator: "/").map(String.init)
            let answer = try await client.call("queue", "GET", ["pending"] + parts)
            return (answer["pendingTasks"]?.int ?? 0, nil)
        }
    }

    private func ping() async throws(HTTPClientError) -> (response: HTTPResponse, took: Duration) {
        let start = ContinuousClock.now
        let response = try await transport.send(HTTPRequest(url: client.url("queue", ["ping"]), timeout: .seconds(10)))
        return (response, ContinuousClock.now - start)
    }

    func time(_ options: Options) async -> CheckResult {
        var offsets: [Double] = []
        for _ in 0..<3 {
            guard let (response, took) = try? await ping(), let text = response.headers["Date"],
                let theirs = HTTPDate.timestamp(text)
            else { continue }
            let ours = Timestamp.now() - took / 2
            offsets.append(Double((ours - theirs) / .milliseconds(1)) / 1000)
        }
        guard !offsets.isEmpty else { return CheckResult("time", .unknown, "the queue does not tell its time") }
        // Their clock shows whole seconds only.
        let offset = offsets.sorted()[offsets.count / 2]
        let shown = abs(offset) < 1.5 ? 0 : abs(offset)
        let measure = measure("offset", shown, "s", options, "30", "300")
        return CheckResult("time", .ok, "this clock differs from the queue's by \(Int(shown)) s", [measure])
    }

    func host(_ options: Options) async -> CheckResult {
        do {
            let (response, took) = try await ping()
            guard response.status == 200 else {
                return CheckResult("host", .critical, "the queue answers \(response.status)")
            }
            let seconds = Double(took / .milliseconds(1)) / 1000
            return CheckResult("host", .ok, "the queue answers", [measure("time", seconds, "s", options, "2", nil)])
        } catch {
            return CheckResult("host", .critical, "the queue does not answer: \(error.code.name)")
        }
    }
}

/// Dates as HTTP writes them.
enum HTTPDate {
    private static let months = [
        "Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6, "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11,
        "Dec": 12,
    ]

    /// Reads `Sun, 06 Nov 1994 08:49:37 GMT`.
    static func timestamp(_ text: String) -> Timestamp? {
        let parts = text.split(separator: " ")
        guard parts.count == 6, let month = months[String(parts[2])], parts[5] == "GMT" else { return nil }
        func padded(_ text: some StringProtocol) -> String { text.count == 1 ? "0\(text)" : String(text) }
        return Timestamp("\(parts[3])-\(padded("\(month)"))-\(padded(parts[1]))T\(parts[4])Z")
    }
}
