// SPDX-License-Identifier: MPL-2.0

import Core
import DaemonCommand
import Glibc
import LocalTaskclusterKit
import Postgres

/// The daemon that stands in for a Taskcluster deployment on one machine.
enum TaskclusterLocal: DaemonDescription {
    static let name = "taskcluster-local"
    static let abstract = "Serves queue, auth and index on one address, with artifacts on disk."
    static let discussion = "Real workers and clients work against it; hooks-service appears below the same root URL."

    static var migrate: (@Sendable (DaemonContext) async throws -> Void)? {
        { context in
            let pool = PostgresPool(PostgresConfiguration(settings: context.settings, applicationName: name))
            try context.settings.check()
            try await LocalTaskcluster.migrate(pool)
        }
    }
}

@main
enum Main {
    static func main() async {
        allowManyConnections()
        await DaemonCommand<TaskclusterLocal>.main()
    }

    /// Each waiting worker is a descriptor; a usual session allows fewer than there may be workers.
    private static func allowManyConnections() {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = max(limit.rlim_cur, min(limit.rlim_max, 65_536))
        // Where that is refused, the limit stays what it was.
        _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
}
