// SPDX-License-Identifier: MPL-2.0

import JSON
import Taskcluster

/// The parts of a task's payload that the worker itself acts on, checked before anything is done.
struct TaskPayload: Sendable, Hashable {
    /// Files of another task that the script needs.
    struct Upstream: Sendable, Hashable {
        var taskID: String
        var paths: [String]
        var isOptional: Bool
        /// Announced digests by path, an addition of ours: `sha256: {path: hex}` in the entry.
        var digests: [String: String]
    }

    /// Why a payload cannot be worked on.
    struct Problem: Error, Hashable, CustomStringConvertible {
        let description: String
    }

    /// How long the script may run, when the task says so.
    var maxRunTime: Duration?
    var upstream: [Upstream] = []

    init(task: JSONValue) throws(Problem) {
        guard let payload = task["payload"], payload.object != nil else {
            throw Problem(description: "task.payload must be an object")
        }
        if let value = payload["maxRunTime"] {
            guard let seconds = value.int, value.bool == nil, seconds >= 1, seconds < 1 << 31 else {
                throw Problem(description: "task.payload.maxRunTime must be an integer of at least 1")
            }
            maxRunTime = .seconds(seconds)
        }
        guard let entries = payload["upstreamArtifacts"] else { return }
        guard let entries = entries.array else {
            throw Problem(description: "task.payload.upstreamArtifacts must be an array")
        }
        for entry in entries { upstream.append(try Self.upstream(entry)) }
    }

    private static func upstream(_ entry: JSONValue) throws(Problem) -> Upstream {
        guard entry.object != nil else { throw Problem(description: "an upstream artifact must be an object") }
        guard let taskID = entry["taskId"]?.string, Slugid.isValid(taskID) else {
            throw Problem(description: "an upstream artifact needs a taskId that is a task's id")
        }
        guard let values = entry["paths"]?.array else {
            throw Problem(description: "the upstream artifacts of \(taskID) need paths")
        }
        let optional = entry["optional"] ?? false
        guard let isOptional = optional.bool else {
            throw Problem(description: "optional must be true or false in the upstream artifacts of \(taskID)")
        }
        var paths: [String] = []
        for value in values {
            guard let path = value.string, isSafe(path) else {
                throw Problem(
                    description: "a path in the upstream artifacts of \(taskID) is not a plain relative path"
                )
            }
            if path.contains("*"), !isOptional {
                throw Problem(description: "the pattern \(path) in the upstream artifacts of \(taskID) needs optional")
            }
            paths.append(path)
        }
        return Upstream(taskID: taskID, paths: paths, isOptional: isOptional, digests: try digests(entry, taskID))
    }

    private static func digests(_ entry: JSONValue, _ taskID: String) throws(Problem) -> [String: String] {
        guard let value = entry["sha256"] else { return [:] }
        var digests: [String: String] = [:]
        for (path, digest) in value.object ?? ["": .null] {
            guard let digest = digest.string, digest.utf8.count == 64, digest.allSatisfy(\.isHexDigit) else {
                throw Problem(description: "sha256 in the upstream artifacts of \(taskID) must map paths to digests")
            }
            digests[path] = digest
        }
        return digests
    }

    /// Whether a path stays below its directory, however it may be decoded on its way.
    static func isSafe(_ path: String) -> Bool {
        guard !path.isEmpty, path.utf8.allSatisfy({ (0x20...0x7e).contains($0) }), staysBelow(path) else {
            return false
        }
        return !path.utf8.contains(UInt8(ascii: "%")) || staysBelow(PercentText.decoded(path))
    }

    /// Whether no segment is empty, one dot or has two in a row, and nothing in it is a backslash or a control character.
    private static func staysBelow(_ path: String) -> Bool {
        var (length, dots) = (0, 0)
        for byte in path.utf8 {
            switch byte {
            case UInt8(ascii: "/"):
                guard length > 0, !(length == 1 && dots == 1) else { return false }
                (length, dots) = (0, 0)
            case UInt8(ascii: "."):
                length += 1
                dots += 1
                guard dots < 2 else { return false }
            case UInt8(ascii: "\\"), 0..<0x20:
                return false
            default:
                length += 1
                dots = 0
            }
        }
        return length > 0 && !(length == 1 && dots == 1)
    }
}
