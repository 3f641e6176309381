// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON

/// Commands about what jobs hold.
struct LocksCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "locks",
        abstract: "See which jobs hold which machines and controllers, and take a lock from a job.",
        discussion: "The service is named by ROLLER_URL, the credentials as for every other command.",
        subcommands: [List.self, Break.self]
    )

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List what is held.",
            discussion: "Example:\n  slipway locks list --machine t-linux64-ms-001"
        )

        @Option(help: "What is held for jobs on one machine.")
        var machine: String?

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let locks = try await LocksCommand.locks(of: machine)
            let rows = locks.map { lock in
                ["resource", "machine", "task_name", "state", "job", "client_id", "expires_at"].map {
                    lock[$0]?.string ?? "-"
                }
            }
            output.print(.array(locks), text: Columns.text(rows, nothing: "nothing is held"))
        }
    }

    struct Break: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take a lock from its job, which is lost then.",
            discussion: """
                Nothing that the job's worker does after this counts. The machine is free when the worker says that it has \
                stopped, or when its lease is over. If the job was about to give power back, a job of recovery does it. Try \
                slipway job cancel first: it ends at a safe point.

                Examples:
                  slipway locks break --machine t-linux64-ms-001 --reason 'its worker hangs'
                  slipway locks break machine:2f6c… --reason 'its worker hangs'
                """
        )

        @Argument(help: "The resource, as slipway locks list shows it.")
        var resource: String?

        @Option(help: "Instead of a resource: all that is held for jobs on a machine.")
        var machine: String?

        @Option(help: "Why, for those who come later.")
        var reason: String

        @OptionGroup var output: OutputOptions

        func run() async throws {
            guard (resource == nil) != (machine == nil) else { throw Failure(usage: "say a resource or --machine") }
            let session = try RollerSession()
            var wanted = [resource].compactMap { $0 }
            if let machine {
                // A job that loses one lock loses all of them.
                var jobs: Set<String> = []
                for lock in try await LocksCommand.locks(of: machine)
                where jobs.insert(lock["job"]?.string ?? "").inserted {
                    wanted.append(lock["resource"]?.string ?? "")
                }
                guard !wanted.isEmpty else { throw Failure("nothing is held for jobs on \(machine)", status: 4) }
            }
            var answers: [JSONValue] = []
            for resource in wanted {
                let body: JSONValue = ["resource": .string(resource), "reason": .string(reason)]
                answers.append(try await session.call("POST", ["locks", "break"], body: body))
            }
            let lines = answers.map { answer in
                let job = answer["job"]?.string.map { "job \($0) is lost" } ?? "no job was under way any more"
                return "\(answer["resource"]?.string ?? ""): \(job)"
            }
            output.print(.array(answers), text: lines.joined(separator: "\n"))
        }
    }

    private static func locks(of machine: String?) async throws -> [JSONValue] {
        let locks = try await RollerSession().call("GET", ["locks"])["locks"]?.array ?? []
        guard let machine = machine?.lowercased() else { return locks }
        return locks.filter { $0["machine"]?.string?.lowercased() == machine }
    }
}
