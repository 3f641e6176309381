// SPDX-License-Identifier: MPL-2.0

public import ServiceLifecycle

/// What a daemon is given to build itself from.
public struct DaemonContext {
    /// The daemon's name.
    public let name: String
    /// Its configuration.
    public let settings: Settings
    /// Where its parts register their health checks.
    public let health: HealthRegistry

    /// Creates a context.
    public init(name: String, settings: Settings, health: HealthRegistry = HealthRegistry()) {
        self.name = name
        self.settings = settings
        self.health = health
    }
}

/// A daemon as a value: what it is called and how it is put together.
public protocol DaemonDescription: Sendable {
    /// The name of the executable, of its log lines and of its database sessions.
    static var name: String { get }
    /// One sentence for `--help`.
    static var abstract: String { get }
    /// More for `--help`: what it needs and offers.
    static var discussion: String { get }
    /// Puts the daemon together without any input or output; services are listed in start order, the server last.
    static func build(_ context: DaemonContext) throws -> [any Service]
    /// Brings the daemon's tables up to date, where it has tables.
    static var migrate: (@Sendable (DaemonContext) async throws -> Void)? { get }
}

extension DaemonDescription {
    /// Nothing more to say.
    public static var discussion: String { "" }
    /// No tables.
    public static var migrate: (@Sendable (DaemonContext) async throws -> Void)? { nil }
}
