// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import Glibc
import HTTPClient
import ScriptworkerKit

/// The worker that runs one configured program per task.
@main
struct ScriptworkerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scriptworker",
        abstract: "Claims tasks from a queue and runs one configured program for each.",
        discussion: """
            Examples:
              scriptworker scriptworker.yaml                 work until told to stop
              scriptworker check-configuration worker.json   print every problem, or nothing
              scriptworker config --print worker.json        print the effective configuration
              scriptworker gen-ed25519-key                   make private_key and public_key here

            SIGTERM stops the task at hand and gives it back; SIGUSR1 finishes it first; SIGHUP reopens the log.
            """,
        version: Release.version,
        subcommands: [Run.self, CheckConfiguration.self, Config.self, GenerateKey.self],
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
            let configuration = try loaded(configPath)
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

        @Flag(name: .customLong("print"), help: "Print it (the only thing there is to do).")
        var prints = false

        @Argument(help: "The configuration file, YAML or JSON.")
        var configPath = "scriptworker.yaml"

        func run() throws { print(try loaded(configPath).printed()) }
    }

    struct GenerateKey: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "gen-ed25519-key",
            abstract: "Make a signing key pair in the current directory.",
            aliases: ["gen_ed25519_key"]
        )

        @Argument(help: "What the two file names begin with.")
        var prefix: String?

        func run() throws {
            let start = prefix.map { "\($0)_" } ?? ""
            try SigningKey.writePair(privatePath: "\(start)private_key", publicPath: "\(start)public_key")
        }
    }
}

/// Loads a configuration or ends the command with every problem on standard error.
private func loaded(_ path: String) throws -> ScriptworkerConfiguration {
    do {
        return try ScriptworkerConfiguration(path: path)
    } catch let problem as ScriptworkerConfiguration.Invalid {
        let text = Array("\(problem)\nExiting...\n".utf8)
        _ = write(STDERR_FILENO, text, text.count)
        throw ExitCode(1)
    }
}
