// SPDX-License-Identifier: MPL-2.0

import TaskclusterClient

/// Why a command ends, in one line that says what to do about it.
struct Failure: Error {
    let message: String
    let status: Int32
    /// Whether the arguments or the environment are wrong.
    var isUsage = false
    /// Whether the same may well succeed a little later.
    var isPassing = false

    /// The work cannot be done.
    init(_ message: String, status: Int32 = 1) {
        self.message = message
        self.status = status
    }

    /// The arguments or the environment are wrong.
    init(usage message: String) {
        self.message = message
        status = 2
        isUsage = true
    }

    /// The other side could not do it; commands about machines tell that from mistakes.
    init(remote message: String) {
        self.init(message, status: 2)
    }

    /// What a service's answer means for the person who asked.
    init(_ error: TaskclusterError) {
        let reason = error.message.split(separator: "\n").joined(separator: " ")
        switch error.status {
        case nil:
            self.init("\(error.url) does not answer (\(reason)); check TASKCLUSTER_ROOT_URL and that the service runs")
        case 401?:
            self.init(
                "the credentials were refused (\(reason)); check TASKCLUSTER_CLIENT_ID and TASKCLUSTER_ACCESS_TOKEN"
            )
        case 403?:
            self.init("not allowed: \(reason)")
        case 404?:
            self.init("not found: \(reason)")
        case let status?:
            self.init("\(error.method) \(error.url) failed with \(status) \(error.code): \(reason)")
        }
    }
}
