// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import DaemonCommand
import Glibc
import HTTPClient
import ScriptworkerKit

/// Begins the worker, or the tool whose name the program was called by.
@main
enum Main {
    static func main() async {
        var arguments = Array(CommandLine.arguments.dropFirst())
        // The script's own start: nothing of ours may run before it but this.
        ScriptStart.becomeScript(ifAskedBy: arguments)
        let name = CommandLine.arguments.first?.split(separator: "/").last.map(String.init) ?? ""
        let tools = ["verify_cot", "create_test_workdir", "verify_ed25519_signature", "gen_ed25519_key"]
        if tools.contains(name) { arguments.insert(name, at: 0) }
        // Monitoring systems take 2 for a worker in trouble, and 3 for a check that could not be made.
        await ScriptworkerCommand.runToEnd(arguments, wrongUsage: arguments.first == "check" ? 3 : 2)
    }
}

/// The worker that runs one configured program per task.
struct ScriptworkerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scriptworker",
        abstract: "Claims tasks from a queue and runs one configured program for each.",
        discussion: """
            Examples:
              scriptworker scriptworker.yaml                 work until told to stop
              scriptworker check-configuration worker.json   print every problem, or nothing
              scriptworker verify-cot --task-type signing ID verify where a task comes from
              scriptworker check log --config worker.json    say how a worker is, to a monitoring system
              scriptworker run-local worker.json task.json   try out a script without a queue

            SIGTERM stops the task at hand and gives it back; SIGUSR1 finishes it first; SIGHUP reopens the log.
            """,
        version: Release.version,
        subcommands: [
            Run.self, CheckConfiguration.self, Config.self, Check.self, Drain.self, RunLocal.self, VerifyChain.self,
            ExplainChain.self, CreateTestWorkdir.self, SignStatement.self, VerifySignature.self, GenerateKey.self,
        ],
        defaultSubcommand: Run.self
    )
}

extension ScriptworkerCommand {
    struct Run: AsyncParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Work until told to stop (the default).")

        @Argument(help: "The configuration file, YAML or JSON.")
        var configPath = "scriptworker.yaml"

        func run() async throws {
            let stop = StopControl()
            stop.listen()
            let configuration = try loaded(configPath, forWorking: true)
            let transport = CurlTransport()
            let worker = try Scriptworker(configuration, transport: transport, stop: stop)
            let status = await worker.run()
            transport.shutdown()
            throw ExitCode(status)
        }
    }

    struct CheckConfiguration: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Say what is wrong with a configuration file.")

        @Argument(help: "The configuration file, YAML or JSON.")
        var configPath = "scriptworker.yaml"

        func run() throws {
            for warning in try loaded(configPath).warnings { print("warning: \(warning)") }
            print("\(configPath) can be used")
        }
    }

    struct Config: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Print the effective configuration, secrets masked.")

        @Flag(name: .customLong("print"), help: "Print all of it (the default).")
        var prints = false

        @Flag(help: "Print it without the keys that the Python worker does not know.")
        var python = false

        @Flag(help: "Print the built-in products, as a file to begin one's own with.")
        var products = false

        @Argument(help: "The configuration file, YAML or JSON.")
        var configPath = "scriptworker.yaml"

        func run() throws {
            if products { return print(ScriptworkerConfiguration.builtInProducts) }
            print(try loaded(configPath).printed(forPython: python))
        }
    }

    struct RunLocal: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Run the script against a task file, without a queue; the exit status is the task's code."
        )

        @Argument(help: "The configuration file, YAML or JSON.")
        var configPath: String

        @Argument(help: "The task's definition as JSON.")
        var taskPath: String

        func run() async throws {
            let transport = CurlTransport()
            do {
                let configuration = try loaded(configPath, forWorking: true)
                let status = try await LocalRun.run(configuration, taskPath: taskPath, transport: transport) {
                    print($0)
                }
                throw ExitCode(status)
            } catch let problem as ChainProblem {
                throw failed(problem.description)
            }
        }
    }

    struct Check: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Say how a worker on this machine is, as monitoring plugins do.",
            discussion:
                "Checks: \(MonitorChecks.names.joined(separator: ", ")). Exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."
        )

        @Argument(help: "The check.")
        var name: String

        @Option(help: "The worker's configuration file.")
        var config = "scriptworker.yaml"

        @Option(name: .shortAndLong, help: "Warn when the value is outside of this range.")
        var warning: String?

        @Option(name: .shortAndLong, help: "Alert when the value is outside of this range.")
        var critical: String?

        @Option(name: .shortAndLong, help: "Give up after this many seconds.")
        var timeout = 10

        @Flag(help: "With queue: look at the age of the oldest pending task, too.")
        var oldest = false

        func run() async throws {
            var options = MonitorChecks.Options()
            options.warning = warning
            options.critical = critical
            options.timeout = .seconds(max(1, timeout))
            options.looksAtOldest = oldest
            let result = await MonitorChecks.result(
                name,
                configurationPath: config,
                options: options,
                transport: CurlTransport()
            )
            print(result.output)
            throw ExitCode(result.state.rawValue)
        }
    }

    struct Drain: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Ask the worker to finish its task and leave, and wait for that."
        )

        @Option(help: "The worker's configuration file.")
        var config = "scriptworker.yaml"

        @Option(help: "Give up after this many seconds; without it wait for ever.")
        var timeout: Int?

        func run() async throws {
            let hasEnded = try await ScriptworkerKit.Drain.run(loaded(config), timeout: timeout.map { .seconds($0) })
            guard hasEnded else { throw failed("the worker is still there") }
        }
    }
}

/// Loads a configuration or ends the command with every problem on standard error.
func loaded(_ path: String, forWorking: Bool = false) throws -> ScriptworkerConfiguration {
    do {
        return try ScriptworkerConfiguration(path: path, forWorking: forWorking)
    } catch let problem as ScriptworkerConfiguration.Invalid {
        throw failed("\(problem)\nExiting...")
    }
}

/// Says something on standard error; the result ends the command with status 1.
func failed(_ text: String) -> ExitCode {
    say(text)
    return ExitCode(1)
}

/// Says something on standard error.
func say(_ text: String) {
    let bytes = Array((text + "\n").utf8)
    _ = write(STDERR_FILENO, bytes, bytes.count)
}
