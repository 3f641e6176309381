// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import JSON

/// Commands about the machines that roller looks after.
struct MachineCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "machine",
        abstract: "Import, list, show and change machines, take them out of service and back.",
        discussion: "The service is named by ROLLER_URL, the credentials as for every other command.",
        subcommands: [
            Import.self, Export.self, Lint.self, List.self, Show.self, Add.self, Set.self, Remove.self, Link.self,
            Unlink.self, GroupThings.self, ControllerThings.self, ProbeControls.self, Maintenance.self, Window.self,
            Audit.self,
            Check.self,
        ]
    )

    /// Machines as a table.
    static func table(_ machines: [JSONValue]) -> String {
        let rows = machines.map { machine -> [String] in
            let groups = machine["groups"]?.array?.compactMap(\.string).joined(separator: ",") ?? ""
            let controls =
                machine["controls"]?.array?.compactMap { $0["controller"]?.string }.joined(separator: ",") ?? ""
            return [
                machine["name"]?.string ?? "?", machine["state"]?.string ?? "?",
                machine["ip"]?.string ?? machine["fqdn"]?.string ?? "-", groups.isEmpty ? "-" : groups,
                controls.isEmpty ? "-" : controls,
            ]
        }
        return Columns.text(rows, nothing: "no machines")
    }
}

extension MachineCommand {
    struct Import: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show what a file would change in the inventory, or change it.",
            discussion: """
                All rows or none are written, unless --partial. Exit status 6 tells that rows have mistakes.

                Examples:
                  slipway machine import machines.csv
                  slipway machine import machines.csv --apply
                  slipway machine import worker_config.json --format worker_config --apply
                """
        )

        @Argument(help: "The file, - for standard input.")
        var file: String

        @Option(help: "json, csv, worker_config or fixtures; otherwise the ending of the file's name tells.")
        var format: String?

        @Flag(help: "Change the inventory; without it nothing is changed.")
        var apply = false

        @Flag(help: "Write the rows without mistakes although others have some.")
        var partial = false

        @Option(help: "Remove the machines of this group that the file does not name.")
        var prune: String?

        @OptionGroup var output: OutputOptions

        func run() async throws {
            var query = [
                ("format", format ?? (file.hasSuffix(".csv") ? "csv" : "json")), ("mode", apply ? "apply" : "plan"),
            ]
            if partial { query.append(("partial", "1")) }
            if let prune { query += [("prune", "1"), ("group", prune)] }
            let answer = try await RollerSession().send(
                "POST",
                ["machines", "import"],
                query: query,
                body: Bytes.contents(file),
                contentType: "application/octet-stream"
            )
            let plan = answer.json
            guard plan["errors"]?.array != nil else { throw RollerSession.failure(answer) }
            output.print(plan, text: Self.text(plan))
            if plan["errors"]?.array?.isEmpty == false { throw ExitCode(6) }
        }

        private static func text(_ plan: JSONValue) -> String {
            let isApplied = plan["applied"]?.bool == true
            var lines: [String] = []
            for name in plan["controllers"]?.array ?? [] { lines.append("* controller \(name.string ?? "")") }
            for name in plan["groups"]?.array ?? [] { lines.append("* group \(name.string ?? "")") }
            for name in plan["create"]?.array ?? [] { lines.append("+ \(name.string ?? "")") }
            for change in plan["update"]?.array ?? [] {
                let fields = change["changes"]?.object?.keys.joined(separator: ", ") ?? ""
                lines.append("~ \(change["name"]?.string ?? ""): \(fields)")
            }
            for name in plan["delete"]?.array ?? [] { lines.append("- \(name.string ?? "")") }
            for warning in plan["warnings"]?.array ?? [] { lines.append("warning: \(warning.string ?? "")") }
            for problem in plan["errors"]?.array ?? [] {
                let row = problem["row"]?.int ?? 0
                let words = [problem["field"]?.string ?? "", problem["message"]?.string ?? ""]
                lines.append("error: \(row > 0 ? "row \(row): " : "")\(words.joined(separator: " "))")
            }
            func count(_ list: String) -> Int { plan[list]?.array?.count ?? 0 }
            lines.append(
                "\(count("create")) new, \(count("update")) changed, \(count("delete")) removed, "
                    + "\(plan["unchanged"]?.int ?? 0) unchanged; \(isApplied ? "written" : "nothing written")"
            )
            return lines.joined(separator: "\n")
        }
    }

    struct Export: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the inventory in a form that import reads again.",
            discussion: """
                Secrets stay where they are. What a form cannot say is counted on standard error; json says everything.

                Examples:
                  slipway machine export >machines.json
                  slipway machine export --format csv >machines.csv
                """
        )

        @Option(help: "json, csv or worker_config.")
        var format = "json"

        func run() async throws {
            let answer = try await RollerSession().send("GET", ["machines", "export"], query: [("format", format)])
            guard answer.isGood else { throw RollerSession.failure(answer) }
            if let omitted = answer.headers["X-Roller-Omitted"], omitted != "0" {
                StandardError.write("\(omitted) things cannot be said as \(format); the log of roller-api names them\n")
            }
            let text = answer.json.isNull ? String(decoding: answer.body, as: UTF8.self) : answer.json.text(.pretty)
            StandardOutput.write(text.hasSuffix("\n") ? text : text + "\n")
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List machines by name.",
            discussion:
                "Examples:\n  slipway machine list --group linux\n  slipway machine list --state maintenance --json"
        )

        @Option(help: "Those of a group.")
        var group: String?

        @Option(help: "Those that are active, in maintenance, loaned or retired.")
        var state: String?

        @Option(help: "Those with this in their name.")
        var search: String?

        @Option(help: "How many.")
        var limit = 1000

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let query = RollerSession.query(["group": group, "state": state, "search": search])
            let machines = try await RollerSession().all(["machines"], list: "machines", query: query, limit: limit)
            output.print(.array(machines), text: MachineCommand.table(machines))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a machine and its last jobs.",
            discussion: "Example:\n  slipway machine show t-linux64-ms-001"
        )

        @Argument(help: "The machine, by any of its names.")
        var name: String

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let session = try RollerSession()
            var machine = try await session.call("GET", ["machines", name])
            let own = machine["name"]?.string ?? name
            let jobs = try await session.all(["jobs"], list: "jobs", query: [("machine", own)], limit: 10)
            machine["jobs"] = .array(jobs)
            var lines: [String] = []
            for (key, value) in machine.object ?? [:] where key != "jobs" && !value.isNull {
                if value.array?.isEmpty == true || value.object?.isEmpty == true { continue }
                lines.append("\(key): \(value.string ?? value.text())")
            }
            lines.append(JobCommand.table(jobs))
            output.print(machine, text: lines.joined(separator: "\n"))
        }
    }

    struct Maintenance: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take a machine out of service, or put it back.",
            discussion: """
                Examples:
                  slipway machine maintenance t-linux64-ms-001 --on --reason 'new disk' --until 2030-01-01T00:00:00Z
                  slipway machine maintenance t-linux64-ms-001 --off
                """
        )

        @Argument(help: "The machine, by any of its names.")
        var name: String

        @Flag(help: "Out of service.")
        var on = false

        @Flag(help: "Back in service.")
        var off = false

        @Option(help: "Why; for --on.")
        var reason: String?

        @Option(help: "When it ends by itself, as in RFC 3339; for --on.")
        var until: String?

        @OptionGroup var output: OutputOptions

        func run() async throws {
            guard on != off else { throw Failure(usage: "say --on or --off") }
            var change: JSONValue = ["state": "active", "state_reason": .null, "state_until": .null]
            if on {
                guard let reason else { throw Failure(usage: "--on needs a --reason, for those who come later") }
                change = ["state": "maintenance", "state_reason": .string(reason)]
                change["state_until"] = until.map(JSONValue.string) ?? .null
            }
            let machine = try await RollerSession().call("PATCH", ["machines", name], body: change)
            let state = machine["state"]?.string ?? "?"
            output.print(machine, text: "\(machine["name"]?.string ?? name) is \(on ? "in maintenance" : state)")
        }
    }

    struct Check: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Probe for Nagios: is a machine in service, and did its last job work?",
            discussion: "Exit status 0, 1, 2 and 3 mean OK, WARNING, CRITICAL and UNKNOWN."
        )

        @Argument(help: "The machine, by any of its names.")
        var name: String

        func run() async throws {
            try await Probe.run {
                let session = try RollerSession()
                let machine = try await session.call("GET", ["machines", name])
                let own = machine["name"]?.string ?? name
                let jobs = try await session.all(["jobs"], list: "jobs", query: [("machine", own)], limit: 1)
                if let obstacle = machine["obstacle"]?.string { return (.warning, "\(own): \(obstacle)") }
                guard let job = jobs.first else { return (.ok, "\(own): no job yet") }
                let text =
                    "\(own): \(job["task_name"]?.string ?? "?") \(job["status"]?.string ?? "?") \(job["created_at"]?.string ?? "")"
                return (job["status"]?.string == "FAILED" ? .critical : .ok, text)
            }
        }
    }
}
