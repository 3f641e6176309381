// SPDX-License-Identifier: MPL-2.0

import JSON
package import RollerKit

/// `uptime`: asks the machine how long it has been running.
package struct UptimeAction: RollerAction {
    /// The name in requests and the text of the button.
    package let description = ActionDescription(
        "uptime",
        title: "Uptime",
        summary: "Logs in and asks how long the machine has been running.",
        isDestructive: false,
        isReadOnly: true,
        controls: [.ssh]
    )

    /// An action without settings of its own.
    package init() {}

    /// The one command.
    package func plan(_ job: ActionJob, _ target: ActionTarget, _ settings: ActionSettings) throws(ActionError)
        -> [String]
    {
        [try SSHClient.plan("uptime", target.control(.ssh), target)]
    }

    /// Logs in and asks.
    package func run(_ context: ActionContext) async throws(ActionError) -> ActionResult {
        let control = try context.target.control(.ssh)
        let client = SSHClient(context: context, control: control)
        let shown = ["ssh", "-l", try SSHClient.login(control), "--", try context.target.host(), "uptime"]
        return try await context.attempt("uptime", control, changes: false, arguments: shown) {
            () async throws(ActionError) -> (ActionResult, AttemptEnd) in
            var (ending, output) = try await client.run("uptime")
            if case .exited(let code) = ending, code != 0 { (ending, output) = try await client.run(Self.windows) }
            guard ending == .exited(0) else {
                let kind: ActionError.Kind = ending == .hostKeyMismatch ? .refused : .unreachable
                throw ActionError(kind, "the machine did not tell its uptime (\(ending))")
            }
            let line = Self.line(output.text)
            var details: JSONObject = ["text": JSONValue(line)]
            if let seconds = Self.seconds(output.text) { details["seconds"] = JSONValue(seconds) }
            return (ActionResult(line, details), AttemptEnd(.ok, exitCode: 0, summary: line, output: output.text))
        }
    }

    /// The line that says it: that with `since`, as on Windows, else the last one.
    static func line(_ text: String) -> String {
        let lines = text.split(whereSeparator: \.isNewline).map(String.init)
        return lines.first { $0.lowercased().contains(" since ") } ?? lines.last ?? ""
    }

    /// What Windows has instead of the command: it tells since when it runs, in the words and the time of the place.
    private static let windows = "net statistics server"

    /// The seconds in what `uptime` prints in its usual forms, or in `/proc/uptime`.
    static func seconds(_ text: String) -> Int? {
        let words = text.split { $0.isWhitespace || $0 == "," }.map(String.init)
        guard let up = words.firstIndex(of: "up") else { return words.first.flatMap { Double($0) }.map { Int($0) } }
        var total = 0
        var found = false
        var index = up + 1
        while index < words.count {
            let word = words[index]
            if word.contains(":"), !found || index < up + 4 {
                let parts = word.split(separator: ":").compactMap { Int($0) }
                guard parts.count == 2 else { break }
                return total + parts[0] * 3600 + parts[1] * 60
            }
            guard let number = Int(word), index + 1 < words.count else { break }
            let unit = words[index + 1]
            if unit.hasPrefix("day") {
                total += number * 86400
            } else if unit.hasPrefix("h") {
                total += number * 3600
            } else if unit.hasPrefix("min") {
                total += number * 60
            } else if unit.hasPrefix("sec") {
                total += number
            } else {
                break
            }
            found = true
            index += 2
        }
        return found ? total : nil
    }
}
