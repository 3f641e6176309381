// SPDX-License-Identifier: MPL-2.0

public import Core

/// Where the database is and how to treat it.
///
/// ## Configuration keys
/// - `database.url` (`DATABASE_URL`, secret): `postgres://user:password@host:port/name`, or any libpq connection string.
/// - `database.pool.size` (`DATABASE_POOL_SIZE`, default 8): the most connections at a time.
/// - `database.statement.timeout` (`DATABASE_STATEMENT_TIMEOUT`, default `30s`): the longest a statement may run.
/// - `database.acquire.timeout` (`DATABASE_ACQUIRE_TIMEOUT`, default `10s`): the longest a task waits for a connection.
public struct PostgresConfiguration: Sendable {
    /// The connection string; it holds a password.
    public var url: String
    /// What `pg_stat_activity` shows.
    public var applicationName: String
    /// The most connections at a time.
    public var poolSize: Int
    /// The most tasks that may wait for a connection.
    public var maximumWaiters: Int
    /// The longest a task waits for a connection.
    public var acquireTimeout: Duration
    /// The longest a connection may take to come up.
    public var connectTimeout: Duration
    /// The longest a statement may run, enforced by the server.
    public var statementTimeout: Duration
    /// Whether every query is a look-up by key, so that reading or joining whole tables is never the better plan.
    ///
    /// A prepared plan made while the tables were small would otherwise do that until they are analyzed again.
    public var looksUpByKey = false

    /// Creates a configuration.
    public init(
        url: String,
        applicationName: String = "slipway",
        poolSize: Int = 8,
        maximumWaiters: Int = 10_000,
        acquireTimeout: Duration = .seconds(10),
        connectTimeout: Duration = .seconds(5),
        statementTimeout: Duration = .seconds(30)
    ) {
        self.url = url
        self.applicationName = applicationName
        self.poolSize = poolSize
        self.maximumWaiters = maximumWaiters
        self.acquireTimeout = acquireTimeout
        self.connectTimeout = connectTimeout
        self.statementTimeout = statementTimeout
    }

    /// Reads the configuration of a daemon.
    public init(settings: Settings, applicationName: String) {
        let url = settings.required(
            "database.url",
            secret: true,
            "the PostgreSQL database, for example postgres://user:password@host:5432/name"
        )
        self.init(
            url: url,
            applicationName: applicationName,
            poolSize: settings.int("database.pool.size", default: 8, in: 1...500, "the most database connections"),
            acquireTimeout: settings.duration(
                "database.acquire.timeout",
                default: .seconds(10),
                in: .milliseconds(10)...(.seconds(600)),
                "how long to wait for a free database connection"
            ),
            statementTimeout: settings.duration(
                "database.statement.timeout",
                default: .seconds(30),
                in: .milliseconds(10)...(.seconds(86_400)),
                "how long a database statement may run"
            )
        )
        if !url.isEmpty, let problem = ConnectionParameters.problem(in: url) {
            settings.fail("database.url", "is not a PostgreSQL URL: \(problem)")
        }
    }
}
