// SPDX-License-Identifier: MPL-2.0

import CLinux

/// The environment this process was started with.
enum ProcessEnvironment {
    static func current() -> [String: String] {
        var result: [String: String] = [:]
        guard var entry = clinux_environment() else { return result }
        while let text = entry.pointee {
            let pair = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if pair.count == 2 { result[String(pair[0])] = String(pair[1]) }
            entry += 1
        }
        return result
    }
}
