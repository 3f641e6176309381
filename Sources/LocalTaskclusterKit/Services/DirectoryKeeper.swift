// SPDX-License-Identifier: MPL-2.0
import Core
import Glibc
import JSON
import Logging
import Postgres
import Schedules
import ServiceLifecycle

/// Seeds clients and roles at the start, and keeps their snapshot fresh.
struct DirectoryKeeper: Service {
    let directory: DirectoryStore
    let pool: PostgresPool
    let configuration: LocalTaskcluster.Configuration
    let now: @Sendable () -> Timestamp

    func run() async throws {
        do {
            // A database that is away at first is waited for, like one that goes away later.
            try await cancelWhenGracefulShutdown {
                try await RetryPolicy.reconnect.run(
                    isRetriable: { ($0 as? PostgresError)?.isRetriable ?? false },
                    prepare
                )
            }
        } catch  where Task.isShuttingDownGracefully {
            return
        }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { try await listen() }
            group.addTask {
                // What a lost notification would have told is found out here.
                try await PeriodicService(name: "directory", every: .seconds(5)) {
                    try await directory.reloadIfChanged()
                }.run()
            }
            group.addTask {
                try await PeriodicService(name: "client use", every: .seconds(60)) { try await directory.flushUse() }
                    .run()
            }
            try await group.next()
            group.cancelAll()
        }
    }

    private func prepare() async throws {
        try await LocalTaskcluster.migrate(pool)
        try await directory.seed(
            try configuration.seed.map(read),
            anonymous: try anonymousScopes(),
            secretKey: configuration.secretKey
        )
        try await directory.reload()
    }

    /// Follows the changes that other instances make.
    private func listen() async throws {
        await cancelWhenGracefulShutdown {
            for await _ in pool.notifications(on: [DirectoryStore.channel]) {
                do {
                    try await directory.reloadIfChanged()
                } catch {
                    Logger.current.warning("clients and roles wait for the next look", metadata: ["error": "\(error)"])
                }
            }
        }
    }

    private func anonymousScopes() throws -> [String] {
        switch configuration.anonymous {
        case .public: return AnonymousRole.publicScopes
        case .private: return []
        case .file(let path):
            let scopes = try JSONValue(parsing: Self.contents(of: path)).array?.map(\.string)
            guard let scopes, !scopes.contains(nil) else {
                throw BlobError(message: "the file that TCL_ANONYMOUS_PROFILE names must hold a JSON list of scopes")
            }
            return scopes.compactMap(\.self)
        }
    }

    /// Reads the seed from its file, or takes it as it is.
    private func read(_ seed: String) throws -> Seed {
        let text = seed.hasPrefix("{") ? Array(seed.utf8) : try Self.contents(of: seed)
        guard let seed = Seed(json: try JSONValue(parsing: text), now: now()) else {
            throw BlobError(message: "TCL_SEED must hold clients with clientId and accessToken, and roles with roleId")
        }
        return seed
    }

    private static func contents(of path: String) throws -> [UInt8] {
        guard let file = fopen(path, "re") else { throw BlobError(message: "cannot open \(path)") }
        defer { fclose(file) }
        var contents: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            guard count > 0 else { return contents }
            contents += buffer[..<count]
        }
    }
}

/// What everybody may do unless the deployment is private.
enum AnonymousRole {
    static let publicScopes = [
        "auth:current-scopes", "auth:expand-scopes", "auth:get-client:*", "auth:get-role:*", "auth:list-clients",
        "auth:list-roles", "hooks:get:*", "hooks:list-hooks:*", "hooks:list-last-fires:*", "hooks:status:*",
        "index:find-task:*", "index:list-namespaces:*", "index:list-tasks:*", "purge-cache:all-purge-requests",
        "purge-cache:purge-requests:*", "queue:claimed-count:*", "queue:claimed-list:*", "queue:get-artifact:public/*",
        "queue:get-provisioner:*", "queue:get-task:*", "queue:get-task-queue:*", "queue:get-worker-type:*",
        "queue:get-worker:*", "queue:list-artifacts:*", "queue:list-dependent-tasks:*", "queue:list-provisioners",
        "queue:list-task-group:*", "queue:list-task-queues", "queue:list-worker-types:*", "queue:list-workers:*",
        "queue:pending-count:*", "queue:pending-list:*", "queue:status:*", "secrets:list-secrets",
        "worker-manager:get-*", "worker-manager:list-*", "worker-manager:should-worker-terminate:*",
    ]
}
