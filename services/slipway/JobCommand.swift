// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import HTTPClient
import JSON
import Taskcluster

/// Commands about work on machines.
struct JobCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "job",
        abstract: "Have roller work on a machine, and see what became of it.",
        discussion: "The service is named by ROLLER_URL, the credentials as for every other command.",
        subcommands: [
            Run.self, Watch.self, List.self, Show.self, Log.self, Cancel.self, Actions.self, Register.self, Check.self,
        ]
    )

    /// Jobs as a table.
    static func table(_ jobs: [JSONValue]) -> String {
        Columns.text(
            jobs.map { job in
                ["created_at", "task_id", "task_name", "worker_id", "status", "reason"].map { name in
                    job[name]?.string ?? "-"
                }
            },
            nothing: "no jobs"
        )
    }

    /// Whether nothing can happen to a job any more.
    static func isOver(_ job: JSONValue) -> Bool {
        ["COMPLETE", "FAILED", "CANCELED"].contains(job["status"]?.string ?? "")
    }

    /// How a job ended, in a few words.
    static func ending(_ job: JSONValue) -> String {
        ["status", "reason", "error_class", "bug_url"].compactMap { job[$0]?.string }.joined(separator: " ")
    }

    /// The exit status of a command that waited for a job which did not succeed.
    static let unsuccessful = ExitCode(7)

    /// Prints the changes of a job until it is over; ends with a status of its own if it did not succeed.
    static func watch(_ id: String, _ session: RollerSession, output: OutputOptions) async throws {
        var last = ""
        while true {
            let job = try await session.call("GET", ["jobs", id], query: [("wait", last.isEmpty ? "0" : "20")])
            let state = job["state"]?.string ?? "?"
            let line = "\(state)\(job["waiting_for"]?.string.map { " (waiting for \($0))" } ?? "")"
            if line != last, !output.json { print(line) }
            last = line
            guard isOver(job) else { continue }
            output.print(job, text: summary(job))
            if job["status"]?.string != "COMPLETE" { throw unsuccessful }
            return
        }
    }

    private static func summary(_ job: JSONValue) -> String {
        var lines = (job["attempts"]?.array ?? []).map { attempt in
            let words = ["method", "control", "outcome", "error_class", "summary"].compactMap { attempt[$0]?.string }
            return "  " + words.joined(separator: "  ")
        }
        lines.append(ending(job))
        if let result = job["result"]?.object, !result.isEmpty { lines.append(JSONValue.object(result).text()) }
        return lines.joined(separator: "\n")
    }
}

/// The job a command is about.
struct JobOptions: ParsableArguments {
    @Argument(help: "The id of the job.")
    var job: String
}

extension JobCommand {
    struct Run: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Ask for work on the machine of a worker.",
            discussion: """
                Examples:
                  slipway job run ping t-linux64-ms-001 --watch
                  slipway job run reboot t-linux64-ms-001 --group mdc1 --watch
                  slipway job run reimage t-linux64-ms-001 --confirm t-linux64-ms-001
                """
        )

        @Argument(help: "What to do; see slipway job actions.")
        var task: String

        @Argument(help: "The worker or machine.")
        var worker: String

        @Option(help: "The group of the worker, where its name is not enough.")
        var group: String?

        @Option(help: "The worker's provisioner.")
        var provisioner: String?

        @Option(help: "The worker's type.")
        var workerType: String?

        @Option(name: .customLong("param"), help: ArgumentHelp("A parameter of the action.", valueName: "NAME=VALUE"))
        var parameters: [String] = []

        @Option(help: "The machine's name once more, for work that cannot be undone.")
        var confirm: String?

        @Flag(help: "Plan everything and touch nothing.")
        var dryRun = false

        @Flag(help: "Wait until it is over.")
        var watch = false

        @OptionGroup var output: OutputOptions

        func run() async throws {
            var query = RollerSession.query([
                "task_name": task, "worker_group": group, "provisioner_id": provisioner, "worker_type": workerType,
                "confirm": confirm, "dry_run": dryRun ? "1" : nil,
            ])
            for parameter in parameters {
                guard let equals = parameter.firstIndex(of: "=") else {
                    throw Failure(usage: "--param wants NAME=VALUE")
                }
                query.append((String(parameter[..<equals]), String(parameter[parameter.index(after: equals)...])))
            }
            let session = try RollerSession()
            let job = try await session.call("POST", ["workers", worker, "jobs"], query: query, key: Slugid.make())
            guard let id = job["task_id"]?.string else { throw Failure(remote: "roller answered without a job") }
            guard watch else {
                output.print(job, text: id)
                return
            }
            if !output.json { print(id) }
            try await JobCommand.watch(id, session, output: output)
        }
    }

    struct Watch: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Wait until a job is over; exit status 7 if it did not succeed.",
            discussion: "Example:\n  slipway job watch e62c4d06-8101-4074-b3c2-c639005a4430"
        )

        @OptionGroup var job: JobOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            try await JobCommand.watch(job.job, RollerSession(), output: output)
        }
    }

    struct List: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List jobs, newest first.",
            discussion: "Examples:\n  slipway job list --status failed\n  slipway job list --machine t-linux64-ms-001"
        )

        @Option(help: "Those on a machine.")
        var machine: String?

        @Option(help: "Those of a worker.")
        var worker: String?

        @Option(help: "Those of a task.")
        var task: String?

        @Option(help: "Those that are pending, running, complete, failed or canceled.")
        var status: String?

        @Option(help: "Those since a moment, as in RFC 3339.")
        var since: String?

        @Option(help: "How many.")
        var limit = 20

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let query = RollerSession.query([
                "machine": machine, "worker_id": worker, "task_name": task, "status": status, "since": since,
            ])
            let jobs = try await RollerSession().all(["jobs"], list: "jobs", query: query, limit: limit)
            output.print(.array(jobs), text: JobCommand.table(jobs))
        }
    }

    struct Show: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a job with all that was tried.",
            discussion: "Example:\n  slipway job show e62c4d06-8101-4074-b3c2-c639005a4430"
        )

        @OptionGroup var job: JobOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await RollerSession().call("GET", ["jobs", job.job])
            output.print(answer, text: JobCommand.table([answer]) + "\n" + JobCommand.summary(answer))
        }
    }

    struct Log: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Print what happened in a job; --follow until it is over.",
            discussion: "Example:\n  slipway job log e62c4d06-8101-4074-b3c2-c639005a4430"
        )

        @OptionGroup var job: JobOptions

        @Flag(help: "Go on until the job is over.")
        var follow = false

        func run() async throws {
            let session = try RollerSession()
            var shown = 0
            while true {
                // The state is read first: what is written before the end is then seen for certain.
                let pause = shown == 0 ? "0" : "2"
                let isLast =
                    follow
                    ? JobCommand.isOver(try await session.call("GET", ["jobs", job.job], query: [("wait", pause)]))
                    : true
                let answer = try await session.send("GET", ["jobs", job.job, "log"])
                guard answer.status == 200 else { throw RollerSession.failure(answer) }
                try Bytes.write(Array(answer.body.dropFirst(shown)))
                shown = max(shown, answer.body.count)
                if isLast { return }
            }
        }
    }

    struct Cancel: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Cancel a job: at once before it began, at the next safe point after that.",
            discussion: "Example:\n  slipway job cancel e62c4d06-8101-4074-b3c2-c639005a4430"
        )

        @OptionGroup var job: JobOptions
        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await RollerSession().call("POST", ["jobs", job.job, "cancel"])
            let isOver = answer["status"]?.string == "CANCELED"
            output.print(answer, text: isOver ? "canceled" : "asked to stop at the next safe point")
        }
    }

    struct Actions: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List what can be done to machines.",
            discussion: "Example:\n  slipway job actions"
        )

        @OptionGroup var output: OutputOptions

        func run() async throws {
            let answer = try await RollerSession().call("GET", ["actions"])
            let rows = (answer["actions"]?.array ?? []).map { action in
                [
                    action["name"]?.string ?? "?", action["destructive"]?.bool == true ? "destructive" : "-",
                    action["title"]?.string ?? "",
                ]
            }
            output.print(answer, text: Columns.text(rows, nothing: "no actions"))
        }
    }

    struct Check: AsyncParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Probe for Nagios: does work on machines get done?",
            discussion: "Exit status 0, 1, 2 and 3 mean OK, WARNING, CRITICAL and UNKNOWN."
        )

        @Option(help: "Seconds that the oldest waiting job may wait before it is a warning.")
        var warning = 300

        @Option(help: "Seconds that the oldest waiting job may wait before it is critical.")
        var critical = 900

        @Option(help: "Failures of the last hour that are a warning.")
        var failures = 10

        func run() async throws {
            try await Probe.run {
                let summary: JSONValue
                do {
                    summary = try await RollerSession().call("GET", ["summary"])
                } catch let failure as Failure where !failure.isUsage {
                    return (.critical, failure.message)
                }
                func number(_ name: String) -> Int { summary[name]?.int ?? 0 }
                let (age, failed) = (number("oldest_pending_seconds"), number("failed_last_hour"))
                let text =
                    "\(number("pending")) pending, oldest \(age) s, \(number("running")) running, \(failed) failed in an hour, "
                    + "\(number("live_workers")) workers, \(number("machines_left_off")) machines left off"
                    + " | pending=\(number("pending")) oldest=\(age)s running=\(number("running")) failed=\(failed)"
                    + " workers=\(number("live_workers"))"
                if number("live_workers") == 0 || age > critical || number("machines_left_off") > 0 {
                    return (.critical, text)
                }
                return (age > warning || failed >= failures ? .warning : .ok, text)
            }
        }
    }
}
