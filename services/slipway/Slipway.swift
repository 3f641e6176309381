// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import Glibc
import TaskclusterClient

/// The command line for people: hooks and tasks of a deployment, and tools that need none.
struct Slipway: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "slipway",
        abstract: "Looks at and changes the hooks, tasks, workers, roles and clients of a Taskcluster deployment.",
        discussion: """
            The deployment and the credentials come from the environment: TASKCLUSTER_ROOT_URL, and for anything that is not
            public TASKCLUSTER_CLIENT_ID, TASKCLUSTER_ACCESS_TOKEN and, with temporary credentials, TASKCLUSTER_CERTIFICATE.

            Examples:
              slipway hook list
              slipway hook apply nightly.json
              slipway hook trigger project-releng/nightly --payload '{"revision": "abc"}'
              slipway task log VdYnEtzpQs6ZdoNrVAj9Mw
              slipway group list VdYnEtzpQs6ZdoNrVAj9Mw
              slipway worker list slipway/script
            """,
        version: Release.version,
        subcommands: [
            HookCommand.self, TaskCommand.self, GroupCommand.self, WorkerCommand.self, RoleCommand.self,
            ClientCommand.self, BridgeCommand.self, TriggerCommand.self, MachineCommand.self, JobCommand.self,
            LocksCommand.self,
            HostKeysCommand.self, CredentialCommand.self,
            PipelineCommand.self, SignoffCommand.self, ReleaseCommand.self, JSONECommand.self,
            CronCommand.self,
        ]
    )
}

/// Runs the command; exit status 1 is a failure of the work, 2 a mistake in the arguments or the environment.
///
/// Commands about machines have those of their predecessor: 1 a mistake, 2 a failure elsewhere, 3 impossible, 4 not there,
/// 5 locked, 6 done in part.
@main
enum Main {
    private static let usage: Int32 = {
        let own: Set<String> = ["machine", "job", "locks", "hostkeys", "credential"]
        return CommandLine.arguments.dropFirst().first.map(own.contains) == true ? 1 : 2
    }()

    static func main() async {
        do {
            var command = try Slipway.parseAsRoot()
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let failure as Failure {
            StandardError.write("slipway: \(failure.message)\n")
            exit(failure.isUsage ? usage : failure.status)
        } catch let error as TaskclusterError {
            StandardError.write("slipway: \(Failure(error).message)\n")
            exit(1)
        } catch let code as ExitCode {
            exit(code.rawValue)
        } catch {
            // Help and version come as errors too; they belong on standard output.
            if Slipway.exitCode(for: error).isSuccess { Slipway.exit(withError: error) }
            StandardError.write(Slipway.fullMessage(for: error) + "\n")
            exit(usage)
        }
    }
}
