// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import JSON

/// The processor time of the services while something is measured.
///
/// `SLIPWAY_BENCH_PROCESSES` names them: `scheduler=123 postgres=456+`, where a plus counts the children as well. On a
/// machine whose cores are all busy, processor time per operation is what says how many operations it can do.
struct ProcessUsage {
    private struct Subject {
        let name: String
        let pid: Int
        let hasChildren: Bool
    }

    private let subjects: [Subject]
    private let start: [Double]

    init(_ others: String = "") {
        let text = (getenv("SLIPWAY_BENCH_PROCESSES").map { String(cString: $0) } ?? "") + " " + others
        subjects = text.split(separator: " ").compactMap { word in
            let parts = word.split(separator: "=")
            guard parts.count == 2, let pid = Int(parts[1].prefix { $0 != "+" }) else { return nil }
            return Subject(name: String(parts[0]), pid: pid, hasChildren: parts[1].hasSuffix("+"))
        }
        start = subjects.map(Self.seconds)
    }

    /// Milliseconds of processor time by process for each of so many operations, and their sum.
    func perOperation(_ count: Int) -> JSONValue {
        var result: JSONObject = [:]
        var total = 0.0
        for (subject, start) in zip(subjects, start) {
            let milliseconds = 1000 * (Self.seconds(subject) - start) / Double(count)
            total += milliseconds
            result[subject.name] = JSONValue((result[subject.name]?.double ?? 0) + milliseconds)
        }
        result["all"] = JSONValue(total)
        return .object(result)
    }

    private static func seconds(_ subject: Subject) -> Double {
        var ticks = ticks(subject.pid, withReaped: subject.hasChildren)
        if subject.hasChildren {
            let children = text("/proc/\(subject.pid)/task/\(subject.pid)/children")
            for child in children.split(separator: " ") {
                ticks += Int(child).map { Self.ticks($0, withReaped: false) } ?? 0
            }
        }
        return Double(ticks) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    /// User and system time, and that of children that have ended, as the fields 14 to 17 tell it.
    private static func ticks(_ pid: Int, withReaped: Bool) -> Int {
        let line = text("/proc/\(pid)/stat")
        guard let end = line.lastIndex(of: ")") else { return 0 }
        let fields = line[line.index(after: end)...].split(separator: " ")
        return fields.dropFirst(11).prefix(withReaped ? 4 : 2).reduce(0) { $0 + (Int($1) ?? 0) }
    }

    private static func text(_ path: String) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        let count = buffer.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        return String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
    }
}
