// SPDX-License-Identifier: MPL-2.0

import JSON

/// The commands of IPMI that actions use, and how often each may be sent.
enum IPMICommand: String, Hashable, CaseIterable {
    case status, list, info, on, off, soft, reset, cycle, bootdevPXE, solInfo

    /// The words for `ipmitool`.
    var words: [String] {
        switch self {
        case .status: ["chassis", "power", "status"]
        case .list: ["sel", "list", "last", "15"]
        case .info: ["mc", "info"]
        case .on: ["chassis", "power", "on"]
        case .off: ["chassis", "power", "off"]
        case .soft: ["chassis", "power", "soft"]
        case .reset: ["chassis", "power", "reset"]
        case .cycle: ["chassis", "power", "cycle"]
        case .bootdevPXE: ["chassis", "bootdev", "pxe"]
        case .solInfo: ["sol", "info"]
        }
    }

    /// Whether a repetition does no harm; a reset whose answer was lost has happened nevertheless.
    var isIdempotent: Bool { self != .reset && self != .cycle }

    /// Whether it changes anything.
    var changes: Bool { ![.status, .list, .info, .solInfo].contains(self) }

    /// Seconds between transmissions.
    var interval: Int { isIdempotent ? 2 : 5 }

    /// Transmissions of each message: 1 is exactly one, and 0 would mean the program's default of four.
    var transmissions: Int { isIdempotent ? 3 : 1 }

    /// The limit of the whole call.
    var limit: Duration { isIdempotent ? .seconds(30) : .seconds(60) }
}

/// Reads what `ipmitool` prints.
enum IPMIReply {
    private static let noise = [
        "Get HPM.x Capabilities request failed", "Unable to Get Channel Cipher Suites", "Close Session command failed",
    ]

    /// The lines that mean something.
    static func lines(_ text: String) -> [Substring] {
        text.split(separator: "\n").filter { line in !noise.contains { line.contains($0) } }
    }

    /// The power state, wherever among the lines it stands.
    static func power(_ text: String) -> PowerState {
        for line in lines(text) {
            guard let range = line.firstRange(of: "Chassis Power is ") else { continue }
            let rest = line[range.upperBound...].trimmingSuffix(while: \.isWhitespace)
            if rest == "on" { return .on }
            if rest == "off" { return .off }
        }
        return .unknown
    }

    /// Whether the controller does not know the cipher suite.
    static func rejectsSuite(_ text: String) -> Bool {
        [
            "invalid authentication algorithm", "no matching cipher suite", "Unsupported cipher suite ID",
            "is not what we requested",
        ]
        .contains { text.contains($0) }
    }

    /// Whether the controller says that the command makes no sense while the power is off.
    static func isWrongState(_ text: String) -> Bool { text.contains("not supported in present state") }

    /// What a failure means; `quick` when it came before a repetition would have been sent.
    static func failure(_ output: ToolOutput, interval: Int) -> ActionError {
        let text = output.text
        let quick = output.duration < .seconds(interval)
        let busy = [
            "insufficient resources for session", "Node busy", "BMC initialization in progress", "Out of space",
        ]
        if output.timedOut { return ActionError(.timeout, "the controller did not answer in time") }
        if text.contains("Insufficient privilege") || text.contains("Set Session Privilege Level") {
            return ActionError(.config, "the user may not do this")
        }
        if let sign = busy.first(where: { text.contains($0) }) {
            return ActionError(.refused, "the controller is busy (\(sign))", outcome: .failed, isRetriable: true)
        }
        if text.contains("Unable to establish") || text.contains("RAKP") || text.contains("session") {
            return quick
                ? ActionError(.credentialsOrSession, "the controller gave us no session")
                : ActionError(.timeout, "the controller does not answer")
        }
        if text.contains("Could not open socket") || text.contains("Address lookup") {
            return ActionError(.unreachable, "the controller cannot be reached")
        }
        if text.contains("Invalid command") || text.contains("not supported") {
            return ActionError(.unsupported, "the controller does not know this command")
        }
        if !quick { return ActionError(.timeout, "the controller stopped answering") }
        return ActionError(.other, lines(text).last.map { String($0.prefix(160)) } ?? "failed with code \(output.code)")
    }
}

extension Substring {
    func trimmingSuffix(while predicate: (Character) -> Bool) -> Substring {
        var result = self
        while let last = result.last, predicate(last) { result.removeLast() }
        return result
    }
}
