// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Core
import JSON
import RollerActionsKit

/// Runs one action from the command line.
struct Act: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "roller-worker act",
        abstract: "Run one action, without broker and database.",
        discussion: """
            The machine is described by a JSON file, or looked up by name in the inventory (--machine, with DATABASE_URL). \
            Settings come from the environment, credentials from CREDENTIALS_DIR. The answer on standard output is JSON; \
            exit status 0 means done, 1 wrong usage or inventory, 2 the machine or its controller, 3 not possible there.
            """
    )

    @Argument(help: "The action, such as ipmi_status; with --list, all are listed.")
    var action: String?

    @Option(help: "A JSON file with the machine; - for standard input.")
    var target: String?

    @Option(help: "The name of a machine in the inventory.")
    var machine: String?

    @Option(name: .customLong("param"), help: ArgumentHelp("A parameter; may be repeated.", valueName: "NAME=VALUE"))
    var parameters: [String] = []

    @Flag(help: "Show what would be done, and do nothing.")
    var dryRun = false

    @Flag(help: "List the actions.")
    var list = false

    @Flag(name: .shortAndLong, help: "Tell every step on standard error.")
    var verbose = false

    func run() async throws {
        let desk = ActionDesk()
        guard !list else {
            for action in desk.actions { print("\(action.name)\t\(action.title)") }
            return
        }
        guard let action else { throw ValidationError("Name an action, or use --list.") }
        var values: JSONObject = [:]
        for parameter in parameters {
            guard let equals = parameter.firstIndex(of: "=") else {
                throw ValidationError("--param wants NAME=VALUE, for example --param count=2.")
            }
            values[String(parameter[..<equals])] = JSONValue(String(parameter[parameter.index(after: equals)...]))
        }
        let source: ActionDesk.Source
        switch (target, machine) {
        case (let path?, nil): source = .file(path)
        case (nil, let name?): source = .inventory(name)
        default: throw ValidationError("Give either --target or --machine.")
        }
        let tells = verbose
        let answer = try await desk.run(action, source, parameters: values, dryRun: dryRun) { line in
            if tells { StandardError.write(line + "\n") }
        }
        print(answer.json.text(.pretty))
        if answer.status != 0 { throw ExitCode(answer.status) }
    }
}
