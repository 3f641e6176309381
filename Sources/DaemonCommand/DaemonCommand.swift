// SPDX-License-Identifier: MPL-2.0

public import ArgumentParser
public import Core

/// The command line of a daemon: run it, migrate its tables, check its configuration.
public struct DaemonCommand<D: DaemonDescription>: AsyncParsableCommand {
    /// The verbs of this daemon, `run` when none is given.
    public static var configuration: CommandConfiguration {
        var subcommands: [any ParsableCommand.Type] = [DaemonRun<D>.self]
        if D.migrate != nil { subcommands.append(DaemonMigrate<D>.self) }
        subcommands.append(DaemonCheck<D>.self)
        return CommandConfiguration(
            commandName: D.name,
            abstract: D.abstract,
            discussion: D.discussion,
            version: Release.version,
            subcommands: subcommands,
            defaultSubcommand: DaemonRun<D>.self
        )
    }

    /// Creates an unparsed command.
    public init() {}

    /// Parses the process's arguments, does what they say and ends the process: 0, 1, or 2 for wrong usage.
    public static func main() async { await runToEnd() }
}

extension AsyncParsableCommand {
    /// Does what arguments say, those of the process when none are given, and ends the process.
    ///
    /// Wrong usage ends it with status 2, as it does for every program of the suite, or another that a convention wants.
    public static func runToEnd(_ arguments: [String]? = nil, wrongUsage: Int32 = Daemon.misconfigured) async {
        do {
            var command = try parseAsRoot(arguments)
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let code as ExitCode {
            exit(withError: code)
        } catch {
            guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
            StandardError.write(fullMessage(for: error) + "\n")
            exit(withError: ExitCode(wrongUsage))
        }
    }
}

/// The options that every verb of a daemon takes.
struct DaemonOptions: ParsableArguments {
    @Option(name: .long, help: "A file of NAME=VALUE lines; the environment wins over it.")
    var config: String?

    @Option(
        name: .customLong("set"),
        help: ArgumentHelp("A setting that wins over the environment; may be repeated.", valueName: "NAME=VALUE")
    )
    var settings: [String] = []

    @Option(name: .long, help: "The TCP port to listen on (HTTP_PORT).")
    var port: Int?

    var overrides: [String: String] {
        var result: [String: String] = [:]
        for setting in settings {
            guard let equals = setting.firstIndex(of: "=") else { continue }
            result[String(setting[..<equals])] = String(setting[setting.index(after: equals)...])
        }
        if let port { result["HTTP_PORT"] = String(port) }
        return result
    }

    func validate() throws {
        for setting in settings where setting.firstIndex(of: "=") == nil {
            throw ValidationError("--set wants NAME=VALUE, for example --set LOG_LEVEL=debug.")
        }
    }
}

struct DaemonRun<D: DaemonDescription>: AsyncParsableCommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "run", abstract: "Run until SIGTERM or SIGINT (the default).")
    }

    @OptionGroup var options: DaemonOptions

    @Flag(name: .long, help: "Only report what is wrong with the configuration: 0 if nothing is, 1 otherwise.")
    var checkConfig = false

    func run() async throws {
        guard !checkConfig else {
            let status = await Daemon.checkConfiguration(
                D.self,
                overrides: options.overrides,
                file: options.config,
                more: TaskclusterSecret().add
            )
            throw ExitCode(status == Daemon.succeeded ? 0 : 1)
        }
        throw ExitCode(
            await Daemon.run(D.self, overrides: options.overrides, file: options.config, more: TaskclusterSecret().add)
        )
    }
}

struct DaemonMigrate<D: DaemonDescription>: AsyncParsableCommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(commandName: "migrate", abstract: "Bring the tables up to date.")
    }

    @OptionGroup var options: DaemonOptions

    func run() async throws {
        throw ExitCode(
            await Daemon.migrate(
                D.self,
                overrides: options.overrides,
                file: options.config,
                more: TaskclusterSecret().add
            )
        )
    }
}

struct DaemonCheck<D: DaemonDescription>: AsyncParsableCommand {
    static var configuration: CommandConfiguration {
        CommandConfiguration(
            commandName: "check-configuration",
            abstract: "Report what is wrong with the configuration, without starting anything."
        )
    }

    @OptionGroup var options: DaemonOptions

    func run() async throws {
        throw ExitCode(
            await Daemon.checkConfiguration(
                D.self,
                overrides: options.overrides,
                file: options.config,
                more: TaskclusterSecret().add
            )
        )
    }
}
