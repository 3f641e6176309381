// SPDX-License-Identifier: MPL-2.0

import JSON

/// What a worker states about a run: the content of `public/chain-of-trust.json`.
struct ChainStatement: Sendable {
    let json: JSONValue
    /// The public key that verified it, when signatures are checked.
    var signer: String?

    /// Reads a statement about a task and checks that it is one about that task.
    init(_ bytes: [UInt8], about task: ChainTask, signer: String?, policy: ChainPolicy) throws(ChainProblem) {
        do {
            json = try JSONValue(parsing: bytes)
        } catch {
            throw ChainProblem("\(task.label): the statement is not JSON: \(error)")
        }
        self.signer = signer
        guard let found = json["taskId"]?.string, found == task.taskID else {
            throw ChainProblem(
                "\(task.label): the statement is about the task \(json["taskId"]?.text() ?? "nothing")"
            )
        }
        guard json["artifacts"]?.object != nil else {
            throw ChainProblem("\(task.label): the statement lists no artifacts")
        }
        if policy.isStrict { try checkStrictly(task) }
    }

    var runID: Int? { json["runId"]?.int }
    var count: Int { json["artifacts"]?.object?.count ?? 0 }

    private func checkStrictly(_ task: ChainTask) throws(ChainProblem) {
        guard json["chainOfTrustVersion"]?.int == 1 else {
            throw ChainProblem("\(task.label): the statement's chainOfTrustVersion is not 1")
        }
        for (name, _) in json["artifacts"]?.object ?? [:] where name.split(separator: "/").contains("..") {
            throw ChainProblem("\(task.label): the statement lists an artifact that leaves its directory")
        }
        guard let stated = json["task"], stated.object != nil else {
            throw ChainProblem("\(task.label): the statement holds no task")
        }
        for (key, value) in task.definition.object ?? [:] where !GraphMatch.ignoredKeys.contains(key) {
            guard stated[key] == value else {
                throw ChainProblem(
                    "\(task.label): the statement is about a task whose \(key) differs from the queue's: "
                        + JSONDifference.text(expected: value, found: stated[key] ?? .null, at: key)
                )
            }
        }
    }

    /// The digests that an artifact must have; empty when the statement may be vague.
    func digests(of name: String, _ task: ChainTask, _ policy: ChainPolicy) throws(ChainProblem) -> [String: String] {
        guard let listed = json["artifacts"]?[name] else {
            throw ChainProblem(
                "\(task.label): \(name) is not among the artifacts of the statement; most likely the task ended without "
                    + "having made that file"
            )
        }
        var digests: [String: String] = [:]
        for (algorithm, value) in listed.object ?? [:] {
            guard policy.hashAlgorithms.contains(algorithm) else {
                throw ChainProblem("\(task.label): \(algorithm) of \(name) is not an accepted hash algorithm")
            }
            let length = algorithm == "sha512" ? 128 : 64
            guard let text = value.string, text.utf8.count == length,
                text.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) })
            else { throw ChainProblem("\(task.label): the \(algorithm) of \(name) is not a digest") }
            digests[algorithm] = text
        }
        guard !digests.isEmpty || !policy.isStrict else {
            throw ChainProblem("\(task.label): the statement gives no digest of \(name)")
        }
        return digests
    }
}

/// Tells two values apart in words.
enum JSONDifference {
    /// The differences as one line, cut when it gets long.
    static func text(expected: JSONValue, found: JSONValue, at path: String = "", limit: Int = 20) -> String {
        let lines = list(expected: expected, found: found, at: path)
        let text = lines.prefix(limit).joined(separator: "; ")
        return lines.count > limit ? "\(text); and \(lines.count - limit) more" : text
    }

    /// One entry per place.
    static func list(expected: JSONValue, found: JSONValue, at path: String = "") -> [String] {
        guard expected != found else { return [] }
        switch (expected, found) {
        case (.object(let first), .object(let second)):
            var lines: [String] = []
            for (key, value) in first {
                let place = path.isEmpty ? key : "\(path).\(key)"
                if let other = second[key] {
                    lines += list(expected: value, found: other, at: place)
                } else {
                    lines.append("remove \(place): \(short(value))")
                }
            }
            for (key, value) in second where first[key] == nil {
                lines.append("add \(path.isEmpty ? key : "\(path).\(key)"): \(short(value))")
            }
            return lines
        case (.array(let first), .array(let second)) where first.count == second.count:
            var lines: [String] = []
            for (index, pair) in zip(first, second).enumerated() {
                lines += list(expected: pair.0, found: pair.1, at: "\(path)[\(index)]")
            }
            return lines
        default:
            return ["change \(path): \(short(expected)) → \(short(found))"]
        }
    }

    private static func short(_ value: JSONValue) -> String {
        let text = value.text()
        return text.count > 200 ? text.prefix(200) + "…" : text
    }
}
