// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import JSON
import Schedules
import Synchronization

/// What the worker is doing, for people and monitors, in a file that is always complete.
final class Heartbeat: Sendable {
    private let path: String
    private let values: Mutex<JSONObject>

    init(path: String) {
        self.path = path
        values = Mutex([
            "pid": .init(Int(getpid())),
            "version": .string(Release.version),
            "state": "starting",
            "taskId": nil,
            "runId": nil,
            "since": .string(Timestamp.now().iso8601),
            "lastClaimAttempt": nil,
            "lastClaimOk": nil,
            "lastReclaimOk": nil,
            "takenUntil": nil,
            "tasksResolved": ["completed": 0, "failed": 0, "exception": 0],
            "consecutiveClaimErrors": 0,
            "lastError": nil,
            "clockOffset": 0,
            "freeDiskBytes": nil,
            "leftoverProcesses": false,
            "publicKey": nil,
            "updated": nil,
        ])
    }

    /// The state word, for the log.
    var state: String { values.withLock { $0["state"]?.string ?? "" } }

    /// Changes values and writes the file.
    func update(_ changes: JSONObject = [:]) {
        let text = values.withLock { values in
            let now = JSONValue.string(Timestamp.now().iso8601)
            if let state = changes["state"], state != values["state"] { values["since"] = now }
            for (key, value) in changes { values[key] = value }
            values["updated"] = now
            return JSONValue.object(values).bytes(.pretty)
        }
        // A full disk must not end the worker; the age of the file tells.
        try? FileText.replace(path, with: text)
    }

    /// Counts a resolved task.
    func count(_ kind: String) {
        let counts = values.withLock { values in
            var counts = values["tasksResolved"] ?? [:]
            counts[kind] = .init((counts[kind]?.int ?? 0) + 1)
            return counts
        }
        update(["tasksResolved": counts])
    }

    /// Counts a failed claim in a row, or ends the row.
    func claim(failedWith error: String?) {
        let errors = values.withLock { $0["consecutiveClaimErrors"]?.int ?? 0 }
        let now = JSONValue.string(Timestamp.now().iso8601)
        guard let error else { return update(["consecutiveClaimErrors": 0, "lastClaimOk": now]) }
        update(["consecutiveClaimErrors": .init(errors + 1), "lastError": .string(error)])
    }
}
