// SPDX-License-Identifier: MPL-2.0

import Glibc
import Logging
import ServiceLifecycle
import UnixSignals

/// Adds what is configured elsewhere for the daemon of a name, before the daemon reads anything.
public typealias SettingsSource = (Settings, String) async throws -> Void

/// The life of a daemon process, the same for all of them.
public enum Daemon {
    /// The status of a process that ended as it should.
    public static let succeeded: Int32 = 0
    /// The status of a process that failed at its work.
    public static let failed: Int32 = 1
    /// The status of a process that refused its configuration.
    public static let misconfigured: Int32 = 2

    /// Runs a daemon until SIGTERM or SIGINT and returns the exit status; `more` adds to its settings, as in all verbs.
    public static func run<D: DaemonDescription>(
        _: D.Type,
        overrides: [String: String] = [:],
        file: String? = nil,
        more: SettingsSource? = nil
    ) async -> Int32 {
        await start(D.self, overrides, file, more) { context in
            let services = try D.build(context)
            let patience = context.settings.duration(
                "shutdown.timeout",
                default: .seconds(25),
                in: .seconds(1)...(.seconds(3_600)),
                "how long work in progress may take after SIGTERM"
            )
            try context.settings.check()
            return { try await serve(services, context, patience) }
        }
    }

    /// Brings a daemon's tables up to date and returns the exit status.
    public static func migrate<D: DaemonDescription>(
        _: D.Type,
        overrides: [String: String] = [:],
        file: String? = nil,
        more: SettingsSource? = nil
    ) async -> Int32 {
        guard let migrate = D.migrate else {
            StandardError.write("\(D.name) has no tables to migrate\n")
            return succeeded
        }
        return await start(D.self, overrides, file, more) { context in { try await migrate(context) } }
    }

    /// Checks a daemon's configuration without starting anything and returns the exit status.
    public static func checkConfiguration<D: DaemonDescription>(
        _: D.Type,
        overrides: [String: String] = [:],
        file: String? = nil,
        more: SettingsSource? = nil
    ) async -> Int32 {
        await start(D.self, overrides, file, more) { context in
            _ = try D.build(context)
            try context.settings.check()
            return {}
        }
    }

    private static func start<D: DaemonDescription>(
        _: D.Type,
        _ overrides: [String: String],
        _ file: String?,
        _ more: SettingsSource?,
        _ prepare: (DaemonContext) throws -> () async throws -> Void
    ) async -> Int32 {
        signal(SIGPIPE, SIG_IGN)
        let settings = Settings(overrides: overrides, file: file)
        let logger = bootstrapLogging(D.name, settings)
        Metrics.bootstrap()
        return await withLogger(logger) { logger in
            do {
                let context = DaemonContext(name: D.name, settings: settings)
                do {
                    try await more?(settings, D.name)
                    try await prepare(context)()
                    try settings.check()
                } catch let error where !(error is ConfigurationError) {
                    // A part that was built from a missing value may fail before the check: the missing value is the cause.
                    try settings.check()
                    throw error
                }
                return succeeded
            } catch let error as ConfigurationError {
                for problem in error.problems { StandardError.write("\(D.name): \(problem)\n") }
                return misconfigured
            } catch {
                logger.critical("daemon failed", metadata: ["error": "\(error)"])
                return failed
            }
        }
    }

    private static func serve(_ services: [any Service], _ context: DaemonContext, _ patience: Duration) async throws {
        let logger = Logger.current
        var configuration = ServiceGroupConfiguration(
            services: services.map { .init(service: TersePart(service: $0)) },
            gracefulShutdownSignals: [.sigterm, .sigint],
            logger: quiet(logger)
        )
        configuration.maximumGracefulShutdownDuration = patience
        configuration.maximumCancellationDuration = .seconds(5)
        let set = Logger.Metadata(
            uniqueKeysWithValues: context.settings.summary.map { ($0.name, .string($0.value)) }
        )
        logger.notice(
            "daemon starts",
            metadata: ["version": "\(Release.version)", "configuration": .dictionary(set)]
        )
        context.health.noteReady()
        Reactor.shared.after(.seconds(2)) { StartUpMemory.release() }
        try await ServiceGroup(configuration: configuration).run()
        logger.notice("daemon stopped")
    }

    /// The service group tells every step at info and debug; its warnings and errors are enough.
    private static func quiet(_ logger: Logger) -> Logger {
        var logger = logger
        logger.logLevel = max(logger.logLevel, .warning)
        return logger
    }

    private static func bootstrapLogging(_ name: String, _ settings: Settings) -> Logger {
        let text = settings.string("log.level", default: "info", "the least severe level to log")
        let levels = LogLevels(text)
        if levels == nil {
            settings.fail(
                "log.level",
                "must be trace, debug, info, notice, warning, error or critical, or a list such as root:info pulse:debug"
            )
        }
        let format = settings.string(
            "log.format",
            default: isatty(1) == 1 ? "human" : "json",
            "how log lines look: json or human"
        )
        if format != "human", format != "json" { settings.fail("log.format", "must be json or human") }
        LoggingSystem.bootstrap { label in
            LineLogHandler(
                service: name,
                child: label == name ? nil : label,
                level: (levels ?? LogLevels()).level(of: label),
                format: format == "human" ? .human : .json
            )
        }
        return Logger(label: name)
    }
}

/// A service that tells no more than its type.
///
/// The service group takes the description of each service at the start; of a structure that is everything reachable from
/// it: all schemas and routes, at the price of most of the start-up time and memory, and whatever is secret in them.
private struct TersePart: Service, CustomStringConvertible {
    let service: any Service

    var description: String { "\(type(of: service))" }

    func run() async throws { try await service.run() }
}
