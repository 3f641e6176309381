// SPDX-License-Identifier: MPL-2.0

import Glibc
import Testing

@testable import Processes

@Suite(.timeLimit(.minutes(5))) struct RunningProcessTests {
    private let path = "/tmp/slipway-process-\(UInt64.random(in: 0 ... .max)).log"

    private func run(
        _ script: String,
        limit: Duration? = nil,
        bytes: Int = .max
    ) async throws -> (outcome: ProcessOutcome, log: [UInt8]) {
        let marker = "SLIPWAY_TEST=\(path)"
        let log = try OutputLog(path: path, byteLimit: bytes)
        defer { unlink(path) }
        let environment = ["PATH": "/usr/bin:/bin", "SLIPWAY_TEST": path]
        var request = ProcessRequest(["bash", "-c", script], environment: environment, output: log)
        request.timeLimit = limit
        request.stopGrace = .milliseconds(200)
        request.drainTimeout = .milliseconds(300)
        request.orphans = .marked([marker])
        ProcessTree.adoptOrphans()
        let outcome = await (try RunningProcess.start(request)).outcome()
        var bytes = [UInt8](repeating: 0, count: 4 << 20)
        let count = pread(log.descriptor, &bytes, bytes.count, 0)
        return (outcome, Array(bytes[..<max(0, count)]))
    }

    @Test func `S22: a signal that ends the script is told apart from an exit code`() async throws {
        #expect(try await run("exit 42").outcome.status == .exited(42))
        #expect(try await run("kill -SEGV $$").outcome.status == .signalled(SIGSEGV))
    }

    @Test func `S23: a script is stopped at its time limit`() async throws {
        let outcome = try await run("sleep 100", limit: .milliseconds(300)).outcome
        #expect(outcome.ending == .timeLimit)
        #expect(outcome.duration < .seconds(5))
    }

    @Test func `S24: a script that ignores the request to end is killed after the grace time`() async throws {
        let outcome = try await run("trap '' TERM; while :; do sleep 1; done", limit: .milliseconds(300)).outcome
        #expect(outcome.status == .signalled(SIGKILL))
        #expect(!outcome.hasSurvivors)
    }

    @Test func `S25: a detached child that holds the output delays nothing and is ended`() async throws {
        let outcome = try await run("setsid bash -c 'trap \"\" TERM; sleep 1000' & echo started; exit 0").outcome
        #expect(outcome.status == .exited(0))
        #expect(outcome.ending == .natural)
        #expect(outcome.hadLeftovers && !outcome.hasSurvivors)
    }

    @Test func `S26: the clock goes on when the script closes its outputs`() async throws {
        let outcome = try await run("exec >&- 2>&-; sleep 100", limit: .milliseconds(300)).outcome
        #expect(outcome.ending == .timeLimit)
    }

    @Test func `S27: output beyond the limit is dropped with a notice while the script goes on`() async throws {
        let (outcome, log) = try await run("head -c 3000000 /dev/zero", bytes: 1000)
        #expect(outcome.status == .exited(0))
        #expect(log.prefix(1000).allSatisfy { $0 == 0 })
        #expect(String(decoding: log.dropFirst(1000), as: UTF8.self).contains("limit of 1000 bytes"))
    }

    @Test func `S28: bytes that are not text reach the log unchanged`() async throws {
        let log = try await run("printf '\\xff\\xfe'").log
        #expect(log == [0xff, 0xfe])
    }

    @Test func `S31: a missing program is an error and not a crash`() throws {
        let log = try OutputLog(path: path)
        defer { unlink(path) }
        #expect(throws: ProcessesError.self) {
            try RunningProcess.start(ProcessRequest(["/nonexistent/x"], environment: [:], output: log))
        }
    }
}
