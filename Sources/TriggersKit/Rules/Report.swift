// SPDX-License-Identifier: MPL-2.0

import HooksKit

/// How the tasks of triggers ended in a period, for the people who watch over them.
struct Report: Sendable {
    /// How one task ended.
    struct Ending: Sendable {
        let hook: HookName
        let taskID: String
        let state: String
    }

    let endings: [Ending]
    /// How many sightings cannot trigger their hooks.
    let stuck: Int
    /// How many messages could not be read.
    let letters: Int
    /// Triggers that no listener has in its file any more.
    var leftovers: [String] = []

    /// Whether there is nothing that anybody has to look at.
    var isQuiet: Bool {
        endings.allSatisfy { $0.state == "completed" } && stuck == 0 && letters == 0 && leftovers.isEmpty
    }

    /// How many tasks of one state are named.
    private static let most = 25

    /// The letter: a section for each hook whose tasks did not all complete.
    func text(rootURL: String) -> String {
        var sections: [String] = []
        let hooks = Dictionary(grouping: endings, by: \.hook).sorted { "\($0.key)" < "\($1.key)" }
        for (hook, endings) in hooks where endings.contains(where: { $0.state != "completed" }) {
            let states = Dictionary(grouping: endings, by: \.state)
            var lines = ["# \(hook)"]
            let others = states.keys.filter { !Self.usual.contains($0) }.sorted()
            for state in Self.usual + others {
                let tasks = (states[state] ?? []).map(\.taskID).sorted()
                lines.append(
                    "## \(state): \(Self.percent(tasks.count, endings.count)) (\(tasks.count)/\(endings.count))"
                )
                guard state != "completed" else { continue }
                let named = tasks.prefix(Self.most).map { "* [\($0)](\(rootURL)/tasks/\($0))" }
                if !named.isEmpty { lines.append(named.joined(separator: "\n")) }
                if tasks.count > Self.most { lines.append("and \(tasks.count - Self.most) more") }
            }
            sections.append(lines.joined(separator: "\n\n"))
        }
        if stuck > 0 {
            sections.append("\(stuck) sightings cannot trigger their hooks: `slipway trigger runs --stuck`")
        }
        if letters > 0 { sections.append("\(letters) messages could not be read: `slipway trigger dead-letters`") }
        if !leftovers.isEmpty {
            sections.append(
                "In no listener's file any more, but still there: \(leftovers.joined(separator: ", ")). "
                    + "`slipway trigger list` shows what, `slipway trigger remove NAME` takes it away"
            )
        }
        return sections.joined(separator: "\n\n")
    }

    private static let usual = ["completed", "failed", "exception"]

    /// A share with two digits after the point, rounded to the nearest.
    static func percent(_ part: Int, _ whole: Int) -> String {
        guard whole > 0 else { return "0.00%" }
        let hundredths = (part * 20_000 + whole) / (2 * whole)
        let rest = hundredths % 100
        return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)%"
    }
}
