// SPDX-License-Identifier: MPL-2.0

import JSON

/// What `ping` reported.
struct PingOutput: Hashable {
    var transmitted: Int
    var received: Int
    var roundTrip: [Double]

    /// Reads the summary; nil when there is none.
    init?(_ text: String) {
        var counts: (Int, Int)?
        roundTrip = []
        for line in text.split(separator: "\n") {
            if line.contains("packets transmitted") {
                let parts = line.split(separator: ",")
                guard parts.count >= 2, let sent = Self.firstNumber(parts[0]), let got = Self.firstNumber(parts[1])
                else { continue }
                counts = (sent, got)
            } else if line.contains("min/avg/max"), let equals = line.lastIndex(of: "=") {
                let values = line[line.index(after: equals)...].split(separator: " ").first ?? ""
                roundTrip = values.split(separator: "/").compactMap { Double($0) }
            }
        }
        guard let counts else { return nil }
        (transmitted, received) = counts
    }

    var json: JSONObject {
        var result: JSONObject = [
            "transmitted": JSONValue(transmitted), "received": JSONValue(received),
            "loss": JSONValue(transmitted == 0 ? 0 : Double(100 * (transmitted - received)) / Double(transmitted)),
        ]
        if roundTrip.count == 4 {
            result["rtt"] = [
                "min": JSONValue(roundTrip[0]), "avg": JSONValue(roundTrip[1]), "max": JSONValue(roundTrip[2]),
                "mdev": JSONValue(roundTrip[3]),
            ]
        }
        return result
    }

    /// How many echoes are missing that are not just still on their way.
    ///
    /// With a deadline `ping` goes on until enough echoes are back, and so hides that one got lost. One leaves
    /// every second: of a slow machine as many are on their way as its slowest answer took seconds.
    var lost: Int { max(0, transmitted - received - Int((roundTrip.dropFirst(2).first ?? 0) / 1000)) }

    private static func firstNumber(_ text: Substring) -> Int? {
        text.split(separator: " ").lazy.compactMap { Int($0) }.first
    }

    /// What an exit of `ping` means.
    static func failure(code: Int, text: String) -> ActionError? {
        switch code {
        case 0: nil
        case 1: ActionError(.unreachable, "not all echoes came back")
        default:
            if text.contains("Operation not permitted") || text.contains("Permission denied") {
                ActionError(.tooling, "ping may not open a socket here")
            } else if text.contains("not known") || text.contains("name resolution") || text.contains("No address") {
                ActionError(.dns, "the name of the host cannot be resolved")
            } else {
                ActionError(.unreachable, "ping failed with code \(code)")
            }
        }
    }
}
