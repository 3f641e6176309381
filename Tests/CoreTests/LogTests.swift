// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import JSON
import Logging
import Synchronization
import Testing

struct LogTests {
    @Test func `A38: secrets do not reach log lines and a line is one line`() throws {
        let text = written { logger in
            logger[metadataKey: "hook.id"] = "a\nb"
            logger.info(
                "fired",
                metadata: [
                    "accessToken": "hunter2", "nested": ["password": "hunter2", "list": [["secret": "hunter2"]]],
                    "url.credentials": "hunter2", "n": "\"q\"",
                ]
            )
        }
        #expect(!text.contains("hunter2"))
        #expect(text.filter { $0 == "\n" }.count == 1)
        let fields = try JSONValue(parsing: text)["Fields"]
        #expect(
            fields == [
                "accessToken": "...", "hook.id": "a\nb", "n": "\"q\"",
                "nested": ["list": [["secret": "..."]], "password": "..."], "url.credentials": "...", "v": 1,
            ]
        )
    }

    @Test func `a sentence is a line of the generic type`() throws {
        let line = try line { logger in
            logger[metadataKey: "request.id"] = "r-1"
            logger[metadataKey: "trace.id"] = "t-1"
            logger.warning("disk is nearly full", metadata: ["free": .stringConvertible(7)])
        }
        #expect(line["Type"] == "monitor.generic")
        #expect(line["Logger"] == "taskcluster.test.part")
        #expect(line["EnvVersion"] == "2.0")
        #expect(line["Severity"] == 4)
        #expect(line["severity"] == "WARNING")
        #expect(line["Pid"]?.int == Int(getpid()))
        #expect(line["Hostname"]?.string?.isEmpty == false)
        #expect(line["serviceContext"] == ["service": "test", "version": .string(Release.version)])
        #expect(line["message"] == "disk is nearly full")
        #expect(line["requestId"] == "r-1")
        #expect(line["traceId"] == "t-1")
        #expect(line["Fields"] == ["free": 7, "v": 1])
        #expect(line["Timestamp"]?.double ?? 0 > 1.7e18)
    }

    @Test func `a dotted or dashed word is a type and brings its fields`() throws {
        let line = try line { $0.notice("audit-event", metadata: ["v": .stringConvertible(2), "entity": "client"]) }
        #expect(line["Type"] == "audit-event")
        #expect(line["message"] == nil)
        #expect(line["Severity"] == 5)
        #expect(line["Fields"] == ["entity": "client", "v": 2])
    }

    @Test func `an error is a line of the error type and repeats its message among the fields`() throws {
        let line = try line { $0.error("request failed", metadata: ["incidentId": "i"]) }
        #expect(line["Type"] == "monitor.error")
        #expect(line["severity"] == "ERROR")
        #expect(line["Fields"] == ["incidentId": "i", "message": "request failed", "v": 1])
    }

    @Test(arguments: [
        ("debug", "pulse", Logger.Level.debug), ("root:warning pulse:debug", "pulse.wire", .debug),
        ("root:warning pulse:debug", "postgres", .warning), ("pulse:err", "postgres", .info), ("CRIT", "x", .critical),
        ("", "x", .info),
    ])
    func `levels are one for all or one for each logger`(text: String, logger: String, level: Logger.Level) throws {
        #expect(try #require(LogLevels(text)).level(of: logger) == level)
    }

    @Test(arguments: ["loud", "root:loud", "a:b:info", ":"])
    func `an unknown level is refused`(text: String) {
        #expect(LogLevels(text) == nil)
    }

    private func written(_ body: (inout Logger) -> Void) -> String {
        let lines = Mutex<[String]>([])
        let handler = LineLogHandler(service: "test", child: "part") { line in lines.withLock { $0.append(line) } }
        var logger = Logger(label: "test") { _ in handler }
        body(&logger)
        return lines.withLock { $0.joined() }
    }

    private func line(_ body: (inout Logger) -> Void) throws -> JSONValue {
        try JSONValue(parsing: written(body))
    }
}
