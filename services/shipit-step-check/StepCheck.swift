// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import Glibc
import HTTPClient
import JSON
import Taskcluster

/// The command line.
struct StepCheck: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "shipit-step-check",
        abstract: "Proves that a step service keeps the contract that pipelines rely on.",
        discussion: """
            Creates, follows, cancels and deletes steps at the service and says of each rule whether it holds. The steps have
            names of their own and are removed; what they do is up to the definitions, so give harmless ones.

            Definitions are JSON, or @ and the name of a file. TASKCLUSTER_CLIENT_ID and TASKCLUSTER_ACCESS_TOKEN sign the
            requests where the service wants that.

            Exit status: 0 when every rule holds, 1 when one does not, 2 when the service cannot be reached at all.

            Examples:
              shipit-step-check http://127.0.0.1:9000 --definition '{"seconds": 3600}' --other '{"seconds": 7200}'
              shipit-step-check https://signoff.example.com --definition @one.json --other @two.json --invalid '{"policy": {}}'
            """,
        version: Release.version
    )

    @Argument(help: "The base address of the service, as api_url of a pipeline's step would have it.")
    var url: String

    @Option(help: "A definition that goes on until it is cancelled.")
    var definition: String

    @Option(help: "Another one, which the service takes for something else.")
    var other: String

    @Option(help: "A definition that succeeds by itself, quickly.")
    var succeeding: String?

    @Option(help: "A definition that the service has to refuse; one that is no object is tried in any case.")
    var invalid: String?

    @Option(help: "How long, in seconds, something may take that the service does by itself.")
    var patience: Int = 30

    @Flag(help: "Report as one JSON object.")
    var json = false

    func run() async throws {
        var base = url
        while base.hasSuffix("/") { base.removeLast() }
        let transport = CurlTransport()
        defer { transport.shutdown() }
        let session = Session(base: base, transport: transport, credentials: try Self.credentials())
        let subject = Subject(
            definition: try Self.object(definition, "definition"),
            other: try Self.object(other, "other"),
            succeeding: try succeeding.map { try Self.object($0, "succeeding") },
            invalid: try invalid.map { try Self.object($0, "invalid") },
            patience: .seconds(patience)
        )
        // Whatever it says: somebody has to be there.
        _ = try await session.call("GET", "/")
        let outcomes = await Checker(session: session, subject: subject).run { outcome in
            if !json { print(outcome.line) }
        }
        let broken = outcomes.filter { $0.verdict == .broken }
        if json {
            print(JSONValue.object(["url": .string(base), "rules": .array(outcomes.map(\.json))]).text(.pretty))
        } else {
            print("\(outcomes.count { $0.verdict == .kept }) rules kept, \(broken.count) broken")
        }
        if !broken.isEmpty { throw ExitCode(1) }
    }

    private static func credentials() throws -> Hawk.Credentials? {
        func value(_ name: String) -> String? {
            getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
        }
        guard let client = value("TASKCLUSTER_CLIENT_ID"), let token = value("TASKCLUSTER_ACCESS_TOKEN") else {
            return nil
        }
        return Hawk.Credentials(clientID: client, accessToken: token)
    }

    private static func object(_ text: String, _ name: String) throws -> JSONObject {
        var source = text
        if text.hasPrefix("@") {
            guard let content = read(String(text.dropFirst())) else {
                throw ValidationError("--\(name): \(text.dropFirst()) cannot be read")
            }
            source = content
        }
        guard let value = try? JSONValue(parsing: source), let object = value.object else {
            throw ValidationError("--\(name) has to be a JSON object")
        }
        return object
    }

    private static func read(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            guard count > 0 else { return count == 0 ? String(decoding: bytes, as: UTF8.self) : nil }
            bytes += buffer[..<count]
        }
    }
}

@main
enum Main {
    static func main() async {
        do {
            var command = try StepCheck.parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let code as ExitCode {
            exit(code.rawValue)
        } catch let error as Unreachable {
            StandardError.write("shipit-step-check: \(error.description)\n")
            exit(2)
        } catch {
            if StepCheck.exitCode(for: error).isSuccess { StepCheck.exit(withError: error) }
            StandardError.write(StepCheck.fullMessage(for: error) + "\n")
            exit(2)
        }
    }
}
