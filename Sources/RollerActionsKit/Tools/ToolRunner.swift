// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import Processes
import Synchronization

/// A program to run, with its secrets kept out of the arguments.
package struct ToolInvocation: Sendable, Hashable {
    /// The program and its arguments: exactly what it gets, without a shell in between.
    package var arguments: [String]
    /// Variables added to the small fixed environment; secrets travel here.
    package var environment: [String: String] = [:]
    /// How long the program may run.
    package var limit: Duration

    /// A program with arguments and a limit.
    package init(_ arguments: [String], environment: [String: String] = [:], limit: Duration) {
        self.arguments = arguments
        self.environment = environment
        self.limit = limit
    }
}

/// What a program said and how it ended.
package struct ToolOutput: Sendable, Hashable {
    /// The exit code, 128 + the number for a signal.
    package var code: Int
    /// Both outputs, the first 64 KiB of them, without secrets.
    package var text: String
    /// Whether it had to be ended because its time was over.
    package var timedOut: Bool
    /// How long it ran.
    package var duration: Duration
}

/// Runs programs for one job: no shell, an environment of a few variables, nothing left behind.
package final class ToolRunner: Sendable {
    /// Takes secrets out of what programs print.
    package let redactor: Redactor
    private let path: String
    private let running = Mutex<[Int32: RunningProcess]>([:])
    private static let outputLimit = 64 << 10
    private static let lastRun = Atomic<UInt64>(0)

    /// Creates a runner; programs are looked up in the given search path.
    package init(redactor: Redactor, path: String = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin") {
        self.redactor = redactor
        self.path = path
    }

    /// Runs a program to its end; cancelling the task ends the program and everything it started.
    package func run(_ invocation: ToolInvocation) async throws(ActionError) -> ToolOutput {
        let captured = Captured(limit: Self.outputLimit)
        let mark = "ROLLER_RUN=\(getpid())-\(Self.lastRun.add(1, ordering: .relaxed).newValue)"
        var environment = ["PATH": path, "LC_ALL": "C", "TZ": "UTC", "HOME": "/nonexistent"]
        environment.merge(invocation.environment) { $1 }
        environment["ROLLER_RUN"] = String(mark.dropFirst("ROLLER_RUN=".count))
        let process: RunningProcess
        do {
            let log = try OutputLog(path: "/dev/null") { captured.append($0) }
            var request = ProcessRequest(invocation.arguments, environment: environment, output: log)
            request.timeLimit = invocation.limit
            request.stopGrace = .seconds(2)
            request.drainTimeout = .seconds(1)
            request.orphans = .marked([mark])
            process = try RunningProcess.start(request)
        } catch {
            throw ActionError(.tooling, "\(invocation.arguments.first ?? "program") cannot be started: \(error)")
        }
        running.withLock { $0[process.processID] = process }
        let outcome = await withTaskCancellationHandler {
            await process.outcome()
        } onCancel: {
            process.stop()
        }
        running.withLock { _ = $0.removeValue(forKey: process.processID) }
        let code =
            switch outcome.status {
            case .exited(let code): Int(code)
            case .signalled(let signal): 128 + Int(signal)
            }
        return ToolOutput(
            code: code,
            text: redactor.clean(captured.text),
            timedOut: outcome.ending == .timeLimit,
            duration: outcome.duration
        )
    }

    /// Kills whatever runs.
    package func kill() {
        for process in running.withLock({ Array($0.values) }) { process.kill() }
    }
}

/// The first bytes of an output.
private final class Captured: Sendable {
    private let bytes = Mutex<[UInt8]>([])
    private let limit: Int

    init(limit: Int) {
        self.limit = limit
    }

    func append(_ more: UnsafeRawBufferPointer) {
        bytes.withLock { bytes in bytes.append(contentsOf: more.prefix(max(0, limit - bytes.count))) }
    }

    var text: String { String(decoding: bytes.withLock { $0 }, as: UTF8.self) }
}
