// SPDX-License-Identifier: MPL-2.0
import Core
import Glibc
import Schedules
import Taskcluster

/// Runs one benchmark for about a second and prints its rate, in operations a second, alone on a line.
///
/// The driver (`deploy/local/bench`) runs it in turn with the peer, so that both see the same machine.
@main
enum Benchmarks {
    private static let usage = """
        usage: slipway-bench jsone|jsone-render TEMPLATE CONTEXT | jsone-result TEMPLATE CONTEXT NOW | hawk | amqp MESSAGES
               | queue-setup NAME | queue-empty | queue CONNECTIONS SECONDS | queue-http CONNECTIONS SECONDS
               | queue-backlog SHORT LONG ROUNDS | queue-wake COUNT | queue-idle WORKERS
               | trigger CONNECTIONS COUNT | messages SINGLE BURST | due HOOKS MINUTES | lateness COUNT
               | bind HOOKS | unbind RUN | change COUNT
               | shipit-read CONNECTIONS SECONDS PERSON(0,1) | shipit-sign CONNECTIONS COUNT | shipit-next COUNT
               | shipit-fill PIPELINES STEPS | shipit-put CONNECTIONS PIPELINES STEPS | shipit-events PIPELINES STEPS
               | shipit-restart | shipit-hang URL PIPELINES STEPS | http METHOD PORT PATH CONNECTIONS SECONDS
        """

    static func main() async {
        var words = Array(CommandLine.arguments.dropFirst())
        guard !words.isEmpty else {
            print(usage)
            exit(2)
        }
        let name = words.removeFirst()
        do {
            guard try await run(name, words) else {
                print(usage)
                exit(2)
            }
        } catch {
            StandardError.write("slipway-bench \(name): \(error)\n")
            exit(1)
        }
    }

    private static func run(_ name: String, _ words: [String]) async throws -> Bool {
        let numbers = words.compactMap { Int($0) }
        switch (name, words.count, numbers.count) {
        case ("jsone", 2, _): try JSONEBenchmark(words[0], words[1]).compileAndRender()
        case ("jsone-render", 2, _): try JSONEBenchmark(words[0], words[1]).render()
        case ("jsone-result", 3, _): try JSONEBenchmark(words[0], words[1]).printResult(now: words[2])
        case ("hawk", 0, _): hawk()
        case ("amqp", 1, 1):
            print(try await AMQPBenchmark.run(url: environment("AMQP_URL"), messages: numbers[0], prefetch: 250))
        case ("queue-setup", 1, _):
            let url = try environment("QUEUE_DATABASE_URL")
            try await QueueBenchmark.setUp(url: url, beside: environment("DATABASE_URL"), name: words[0])
        case ("queue-empty", 0, _): try await QueueBenchmark.empty(url: environment("QUEUE_DATABASE_URL"))
        case ("queue", 2, 2):
            let url = try environment("QUEUE_DATABASE_URL")
            print(try await QueueBenchmark.run(url: url, connections: numbers[0], seconds: numbers[1]))
        case ("queue-http", 2, 2): try await HooksBenchmark().work(connections: numbers[0], seconds: numbers[1])
        case ("queue-backlog", 3, 3):
            try await QueueLoadBenchmark().backlog(numbers[0], numbers[1], rounds: numbers[2])
        case ("queue-wake", 1, 1): try await QueueLoadBenchmark().wake(count: numbers[0])
        case ("queue-idle", 1, 1): try QueueLoadBenchmark().idle(count: numbers[0])
        case ("trigger", 2, 2): try await HooksBenchmark().trigger(connections: numbers[0], count: numbers[1])
        case ("messages", 2, 2): try await HooksBenchmark().messages(single: numbers[0], burst: numbers[1])
        case ("due", 2, 2): try await HooksBenchmark().due(hooks: numbers[0], minutes: numbers[1])
        case ("lateness", 1, 1): try await HooksBenchmark().lateness(count: numbers[0])
        case ("bind", 1, 1): try await HooksBenchmark().bind(hooks: numbers[0])
        case ("unbind", 1, _): try await HooksBenchmark(run: words[0]).unbind()
        case ("change", 1, 1): try await HooksBenchmark().change(count: numbers[0])
        case ("shipit-read", 3, 3):
            try await ShipItBenchmark()
                .read(connections: numbers[0], seconds: numbers[1], asPerson: numbers[2] == 1)
        case ("shipit-sign", 2, 2): try await ShipItBenchmark().sign(connections: numbers[0], count: numbers[1])
        case ("shipit-next", 1, 1): try ShipItBenchmark().next(count: numbers[0])
        case ("shipit-fill", 2, 2): try await ShipItBenchmark().fill(count: numbers[0], steps: numbers[1])
        case ("shipit-put", 3, 3):
            try await ShipItBenchmark().put(connections: numbers[0], count: numbers[1], steps: numbers[2])
        case ("shipit-events", 2, 2):
            try await ShipItBenchmark().events(pipelines: numbers[0], steps: numbers[1])
        case ("shipit-restart", 0, _): try ShipItBenchmark().restart()
        case ("shipit-hang", 3, 2):
            try ShipItBenchmark().hang(url: words[0], pipelines: numbers[0], steps: numbers[1])
        case ("http", 5, 3):
            try await PeerLoad.run(
                words[0],
                port: numbers[0],
                path: words[2],
                connections: numbers[1],
                seconds: numbers[2]
            )
        default: return false
        }
        return true
    }

    /// Verifies a signed request with a payload hash: the MAC, the time, the scopes, then the hash of the body.
    private static func hawk() {
        let key = String(repeating: "x", count: 44)
        let credentials = Hawk.Credentials(clientID: "hooks/project-suite", accessToken: key)
        let target = HawkTarget(
            host: "127.0.0.1",
            port: 8080,
            resource: "/api/hooks/v1/hooks/project-suite/decision/trigger"
        )
        let body = Array(String(repeating: #"{"a":1}"#, count: 64).utf8)
        let now = Timestamp.now()
        let header = Hawk.authorization(
            for: "POST",
            url: target,
            credentials: credentials,
            authorizedScopes: nil,
            payload: (contentType: "application/json", body: body),
            now: now,
            nonce: Hawk.makeNonce()
        )
        let client = Client(
            id: "hooks/project-suite",
            accessToken: key,
            scopes: ["hooks:trigger-hook:*"],
            expires: .farFuture
        )
        let directory = CredentialDirectory(clients: [client.id: client], roles: RoleSet([]))
        let request = AuthenticationRequest(
            method: "POST",
            resource: target.resource,
            host: target.host,
            port: target.port,
            authorization: header
        )
        rate {
            guard case .success(_, _, _, let hash) = directory.authenticate(request, now: now), let hash,
                Hawk.isPayloadHash(hash, contentType: "application/json", body: body)
            else {
                print("the signature was refused")
                exit(1)
            }
        }
    }

    static func rate(_ work: () throws -> Void) rethrows {
        for _ in 0..<20 { try work() }
        let start = ContinuousClock.now
        var count = 0
        while ContinuousClock.now - start < .seconds(1) {
            for _ in 0..<20 { try work() }
            count += 20
        }
        let elapsed = (ContinuousClock.now - start) / .seconds(1)
        print(Double(count) / elapsed)
    }

    static func contents(of path: String) -> [UInt8] {
        guard let file = fopen(path, "rb") else {
            print("cannot read \(path)")
            exit(2)
        }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        while case let byte = fgetc(file), byte != EOF { bytes.append(UInt8(truncatingIfNeeded: byte)) }
        return bytes
    }
}
