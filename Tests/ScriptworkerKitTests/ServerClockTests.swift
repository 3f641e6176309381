// SPDX-License-Identifier: MPL-2.0

import Glibc
import HTTPClient
import JSON
import Schedules
import Synchronization
import Taskcluster
import Testing
import WorkerKit

@testable import ScriptworkerKit

struct ServerClockTests {
    private struct Server: HTTPTransport {
        let response: HTTPResponse
        func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse { response }
    }

    private let now = Timestamp("2026-03-01T10:00:00.000Z") ?? Timestamp(milliseconds: 0)

    private func clock(_ date: String, _ status: Int) -> ServerClock {
        let now = now
        return ServerClock(
            Server(response: HTTPResponse(status: status, headers: ["Date": date])),
            rootURL: "https://tc.example.com",
            host: { now },
            onChange: { _ in }
        )
    }

    @Test(
        arguments: [
            ("Sun, 01 Mar 2026 09:40:00 GMT", 401, -1200), ("Sun, 01 Mar 2026 10:20:00 GMT", 401, 1200),
            ("Sun, 01 Mar 2026 10:20:00 GMT", 200, 0), ("Sun, 01 Mar 2026 10:00:30 GMT", 401, 0), ("nonsense", 401, 0),
        ]
    )
    func `S17: a refusal because of the time corrects the clock`(_ date: String, _ status: Int, _ offset: Int)
        async throws
    {
        let clock = clock(date, status)
        _ = try await clock.send(HTTPRequest(url: "https://tc.example.com/api/queue/v1/claim-work/a"))
        #expect(clock.now() == now + .seconds(offset))
    }

    @Test func `S17: other servers' dates mean nothing`() async throws {
        let clock = clock("Sun, 01 Mar 2026 12:00:00 GMT", 401)
        _ = try await clock.send(HTTPRequest(url: "https://storage.example.com/x"))
        #expect(clock.offset == .zero)
    }

    @Test func `S33: shorter credentials leave valid JSON behind, and a reader cannot change it`() throws {
        let long = Hawk.Credentials(clientID: "c", accessToken: String(repeating: "x", count: 500), certificate: "{}")
        let file = try CredentialsFile(long)
        let reader = try file.readOnly()
        for length in [500, 40, 300, 7] {
            let token = String(repeating: "y", count: length)
            file.update(Hawk.Credentials(clientID: "c", accessToken: token, certificate: nil))
            var bytes: [UInt8] = []
            try reader.forEachPiece { bytes += $0 }
            let json = try JSONValue(parsing: bytes)
            #expect(json["accessToken"]?.string == token)
            #expect(json["certificate"]?.isNull == true)
        }
        #expect(write(reader.descriptor, "x", 1) == -1)
    }
}

struct CheckRangeTests {
    @Test(
        arguments: [
            ("10", 11, true), ("10", 10, false), ("10", -1, true), ("10:", 9, true), ("10:", 10, false),
            ("~:10", -100, false), ("~:10", 11, true), ("10:20", 15, false), ("10:20", 21, true), ("@10:20", 10, true),
            ("@10:20", 21, false), ("5%:", 4, true),
        ] as [(String, Double, Bool)]
    )
    func `S86: ranges alert as monitoring plugins agree on`(_ text: String, _ value: Double, _ expected: Bool) {
        #expect(CheckRange(text)?.alerts(value) == expected)
    }

    @Test(arguments: ["", "ten", "20:10", "1:2:3", ":", "@"])
    func `S87: what is no range is refused`(_ text: String) {
        #expect(CheckRange(text) == nil)
    }

    @Test func `S86: a result is one line with limits behind the values`() {
        let measure = CheckResult.Measure(
            label: "a b",
            value: 73,
            unit: "s",
            warning: CheckRange("20"),
            critical: CheckRange("50"),
            minimum: 0
        )
        let result = CheckResult("queue", .ok, "73 pending | here", [measure])
        #expect(result.state == .critical)
        #expect(result.output == "SCRIPTWORKER QUEUE CRITICAL - 73 pending / here | 'a b'=73s;20;50;0")
    }
}
