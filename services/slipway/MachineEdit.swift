// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import JSON

/// What a machine is to be like.
struct AssignmentOptions: ParsableArguments {
    @Argument(
        help: "NAME=VALUE, such as ip=10.0.0.1, groups=linux,rack1 or properties.verify=ssh; a value of - clears."
    )
    var assignments: [String] = []
}

/// The machine a command is about.
struct MachineOptions: ParsableArguments {
    @Argument(help: "The machine, by any of its names.")
    var name: String
}

extension MachineCommand {
    struct Add: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Add a machine.",
            discussion: "Example:\n  slipway machine add t-linux64-ms-001 ip=10.0.0.1 groups=linux"
        )

        @OptionGroup var machine: MachineOptions
        @OptionGroup var wishes: AssignmentOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let members = try Assignments.members(wishes.assignments)
            let session = try RollerSession()
            let known = try await session.send("GET", ["machines", machine.name])
            guard known.status == 404 else {
                guard known.isGood else { throw RollerSession.failure(known) }
                throw Failure("\(machine.name) is there already; slipway machine set changes it")
            }
            let answer = try await session.call("PUT", ["machines", machine.name], body: members)
            output.print(answer, text: MachineCommand.table([answer]))
        }
    }

    struct Set: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Change a machine; what is not named stays.",
            discussion: """
                Examples:
                  slipway machine set t-linux64-ms-001 ip=10.0.0.2 properties.down_timeout=90
                  slipway machine set t-linux64-ms-001 'controls=[{"controller": "pdu1", "locator": {"outlet": "aa6"}}]'
                  slipway machine set t-linux64-ms-001 fqdn=-
                """
        )

        @OptionGroup var machine: MachineOptions
        @OptionGroup var wishes: AssignmentOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let members = try Assignments.members(wishes.assignments)
            guard members != [:] else { throw Failure(usage: "say what is to change") }
            let answer = try await RollerSession().call("PATCH", ["machines", machine.name], body: members)
            output.print(answer, text: MachineCommand.table([answer]))
        }
    }

    struct Remove: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "remove",
            abstract: "Forget a machine on which no job is under way; its jobs stay.",
            discussion: "Example:\n  slipway machine remove t-linux64-ms-001",
            aliases: ["rm"]
        )

        @OptionGroup var machine: MachineOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            _ = try await RollerSession().call("DELETE", ["machines", machine.name])
            output.print(["removed": .string(machine.name)], text: "\(machine.name) is forgotten")
        }
    }

    struct Lint: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Name what looks wrong in the inventory.",
            discussion:
                "Exit status 1 if there are mistakes; warnings alone are none.\n\nExample:\n  slipway machine lint"
        )

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await RollerSession().call("GET", ["machines", "lint"])
            let errors = (answer["errors"]?.array ?? []).map { error in
                "error: \(error["field"]?.string ?? "") \(error["message"]?.string ?? "")"
            }
            let lines = errors + (answer["warnings"]?.array ?? []).map { "warning: \($0.string ?? "")" }
            output.print(answer, text: lines.isEmpty ? "nothing looks wrong" : lines.joined(separator: "\n"))
            if !errors.isEmpty { throw ExitCode(1) }
        }
    }

    struct ProbeControls: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "probe",
            abstract: "Ask every control of a machine something harmless.",
            discussion: "Exit status 2 if one would not obey.\n\nExample:\n  slipway machine probe t-linux64-ms-001"
        )

        @OptionGroup var machine: MachineOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let job = try await RollerSession().look("probe", at: machine.name)
            guard let controls = job["result"]?["controls"]?.array else {
                throw Failure(remote: "\(machine.name) was not probed: \(JobCommand.ending(job))")
            }
            let rows = controls.map { control -> [String] in
                let word = control["ok"]?.bool.map { $0 ? "ok" : "fails" } ?? "not asked"
                let summary = [control["error_class"]?.string, control["summary"]?.string].compactMap { $0 }
                return [
                    "\(control["kind"]?.string ?? "?"):\(control["control"]?.string ?? "?")", word,
                    summary.joined(separator: ": "),
                ]
            }
            output.print(job, text: Columns.text(rows, nothing: "no controls"))
            if job["status"]?.string != "COMPLETE" { throw JobCommand.unsuccessful }
        }
    }

    // MARK: - Workers

    /// The Taskcluster worker that runs on a machine.
    struct WorkerOptions: ParsableArguments {
        @OptionGroup var machine: MachineOptions

        @Argument(help: "The worker's id.")
        var worker: String

        @Option(help: "Its group.")
        var group: String?

        @Option(help: "Its provisioner.")
        var provisioner: String?

        @Option(help: "Its type.")
        var workerType: String?

        private var value: JSONValue {
            func text(_ value: String?) -> JSONValue { value.map(JSONValue.string) ?? .null }
            return [
                "worker_id": .string(worker.lowercased()), "worker_group": text(group),
                "provisioner_id": text(provisioner),
                "worker_type": text(workerType),
            ]
        }

        /// Changes which workers run on the machine, and answers with the machine.
        func change(_ change: (inout [JSONValue], JSONValue) throws -> Void) async throws -> JSONValue {
            let session = try RollerSession()
            let known = try await session.call("GET", ["machines", machine.name])
            var workers = known["workers"]?.array ?? []
            try change(&workers, value)
            return try await session.call("PATCH", ["machines", machine.name], body: ["workers": .array(workers)])
        }
    }

    struct Link: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Say that a Taskcluster worker runs on a machine.",
            discussion: "Example:\n  slipway machine link t-linux64-ms-001 t-linux64-ms-001 --group mdc1"
        )

        @OptionGroup var options: WorkerOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await options.change { workers, worker in
                if !workers.contains(worker) { workers.append(worker) }
            }
            output.print(answer, text: "\(options.worker) runs on \(answer["name"]?.string ?? options.machine.name)")
        }
    }

    struct Unlink: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Say that a Taskcluster worker does not run on a machine any more.",
            discussion: "Example:\n  slipway machine unlink t-linux64-ms-001 t-linux64-ms-001 --group mdc1"
        )

        @OptionGroup var options: WorkerOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await options.change { workers, worker in
                guard workers.contains(worker) else {
                    throw Failure("no such worker runs on \(options.machine.name)", status: 4)
                }
                workers.removeAll { $0 == worker }
            }
            output.print(answer, text: "\(options.worker) runs elsewhere")
        }
    }
}
