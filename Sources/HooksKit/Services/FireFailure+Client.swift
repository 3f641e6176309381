// SPDX-License-Identifier: MPL-2.0

import JSON
import TaskclusterClient

extension FireFailure {
    /// A failed call of a Taskcluster service.
    init(_ error: TaskclusterError, calling method: String = "createTask") {
        guard let status = error.status else {
            self.init(network: error.message)
            return
        }
        let body = error.body
        self.init(
            method: body?["requestInfo"]?["method"]?.string ?? method,
            code: body?["code"]?.string ?? error.code,
            status: status,
            message: body?["message"]?.string ?? error.message,
            url: error.url,
            body: body
        )
    }
}
