// SPDX-License-Identifier: MPL-2.0
import Glibc
import Schedules
import Taskcluster

/// Runs one benchmark for about a second and prints its rate, in operations a second, alone on a line.
///
/// The driver (`deploy/local/bench`) runs it in turn with the peer, so that both see the same machine.
@main
enum Benchmarks {
    static func main() async throws {
        let arguments = CommandLine.arguments.dropFirst()
        switch arguments.first {
        case "jsone": try JSONEBenchmark(arguments[2], arguments[3]).compileAndRender()
        case "jsone-render": try JSONEBenchmark(arguments[2], arguments[3]).render()
        case "jsone-result": try JSONEBenchmark(arguments[2], arguments[3]).printResult(now: arguments[4])
        case "hawk": hawk()
        case "amqp":
            guard let url = getenv("AMQP_URL").map({ String(cString: $0) }) else {
                print("AMQP_URL is not set: source .local/env")
                exit(2)
            }
            print(try await AMQPBenchmark.run(url: url, messages: 50_000, prefetch: 250))
        default:
            print("usage: slipway-bench jsone|jsone-render TEMPLATE CONTEXT | jsone-result TEMPLATE CONTEXT NOW | hawk | amqp")
            exit(2)
        }
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
