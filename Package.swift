// swift-tools-version: 6.2
import PackageDescription

// MARK: - House rules

/// Swift 6 mode, spelled-out existentials and imports, async functions that stay with their caller, and no warnings.
///
/// MemberImportVisibility stays off: with the static standard library the C library's time types belong to a module that
/// cannot be imported.
let house: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .treatAllWarnings(as: .error),
]

/// Modules without I/O promise memory safety as well.
let pure = house + [.strictMemorySafety()]

// MARK: - Products of other packages

extension Target.Dependency {
    static let arguments = product(name: "ArgumentParser", package: "swift-argument-parser")
    static let collections = product(name: "OrderedCollections", package: "swift-collections")
    static let crypto = product(name: "Crypto", package: "swift-crypto")
    static let cryptoExtras = product(name: "CryptoExtras", package: "swift-crypto")
    static let httpTypes = product(name: "HTTPTypes", package: "swift-http-types")
    static let coreMetrics = product(name: "CoreMetrics", package: "swift-metrics")
    static let hummingbird = product(name: "HummingbirdCore", package: "hummingbird")
    static let jwt = product(name: "JWTKit", package: "jwt-kit")
    static let lifecycle = product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
    static let logging = product(name: "Logging", package: "swift-log")
    static let metrics = product(name: "Metrics", package: "swift-metrics")
    static let nioCore = product(name: "NIOCore", package: "swift-nio")
    static let nioHTTPTypes = product(name: "NIOHTTPTypes", package: "swift-nio-extras")
    static let nioPosix = product(name: "NIOPosix", package: "swift-nio")
    static let signals = product(name: "UnixSignals", package: "swift-service-lifecycle")
}

/// Lean executables: packed relocations and no exported symbols, so that fewer pages are touched and fewer kept.
let lean: [LinkerSetting] = [
    .unsafeFlags(
        ["-use-ld=lld", "-Xlinker", "-z", "-Xlinker", "pack-relative-relocs", "-Xlinker", "--no-export-dynamic"],
        .when(platforms: [.linux], configuration: .release)
    )
]

// MARK: - Kinds of target

func system(_ name: String, pkgConfig: String? = nil, apt: String? = nil) -> Target {
    .systemLibrary(name: name, pkgConfig: pkgConfig, providers: apt.map { [.apt([$0])] })
}

func library(
    _ name: String,
    _ dependencies: [Target.Dependency] = [],
    migrations: Bool = false,
    pages: Bool = false,
    settings: [SwiftSetting] = house
) -> Target {
    .target(
        name: name,
        dependencies: dependencies,
        resources: (migrations ? [.embedInCode("Store/Migrations")] : []) + (pages ? [.embedInCode("Pages")] : []),
        swiftSettings: settings
    )
}

func service(_ name: String, _ dependencies: [Target.Dependency], examples: Bool = false) -> Target {
    .executableTarget(
        name: name,
        dependencies: ["Core", "DaemonCommand", .arguments, .lifecycle, .logging] + dependencies,
        path: "services/\(name)",
        exclude: ["README.md"] + (examples ? ["examples"] : []),
        swiftSettings: house,
        linkerSettings: lean
    )
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(
        name: "\(name)Tests",
        dependencies: [.byName(name: name)] + dependencies,
        exclude: ["Expressions": ["facts.py"], "JSONE": ["differential.py"]][name] ?? [],
        swiftSettings: house
    )
}

// MARK: - The suite

let package = Package(
    name: "slipway",
    platforms: [.macOS(.v15)],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser.git", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections.git", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto.git", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-http-types.git", from: "1.8.0", traits: []),
        .package(url: "https://github.com/apple/swift-log.git", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-metrics.git", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-nio.git", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-extras.git", from: "1.35.2"),
        .package(
            url: "https://github.com/hummingbird-project/hummingbird.git",
            from: "2.28.1",
            traits: ["ConfigurationSupport"]
        ),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle.git", from: "2.13.0"),
        .package(url: "https://github.com/vapor/jwt-kit.git", from: "5.7.1"),
    ],
    targets: [
        // C libraries of the system.
        system("CCurl", pkgConfig: "libcurl", apt: "libcurl4-openssl-dev"),
        system("CLibPQ", pkgConfig: "libpq", apt: "libpq-dev"),
        system("CLibYAML", pkgConfig: "yaml-0.1", apt: "libyaml-dev"),
        system("CLinux"),
        system("CPCRE2", pkgConfig: "libpcre2-8", apt: "libpcre2-dev"),
        system("CRabbitMQ", pkgConfig: "librabbitmq", apt: "librabbitmq-dev"),
        system("CZlib", pkgConfig: "zlib", apt: "zlib1g-dev"),

        // Pure: values and rules, no I/O.
        library("Expressions", ["CPCRE2"]),
        library("JSON", [.collections], settings: pure),
        library("JSONE", ["JSON", "Schedules"], settings: pure),
        library("JSONSchema", ["Expressions", "JSON"], settings: pure),
        library("Schedules", settings: pure),
        library("Taskcluster", ["JSON", "Schedules", .crypto], settings: pure),

        // What every process shares.
        library(
            "Core",
            ["CLinux", "JSON", "Schedules", .coreMetrics, .lifecycle, .logging, .metrics, .signals]
        ),
        library("DaemonCommand", ["Core", "HTTPClient", "JSON", "Taskcluster", "TaskclusterClient", .arguments]),

        // Adapters: one technology each.
        library(
            "APIServer",
            [
                "CZlib", "Core", "Expressions", "HTTPClient", "JSON", "JSONSchema", "Schedules", "Taskcluster",
                .hummingbird,
                .httpTypes,
                .lifecycle,
                .logging, .metrics, .nioCore, .nioHTTPTypes, .nioPosix, .coreMetrics,
            ]
        ),
        library("HTTPClient", ["Schedules", "CCurl", "CLinux", "Core", "JSON", .lifecycle, .logging]),
        library(
            "Notices",
            ["Core", "HTTPClient", "JSON", "Postgres", "TaskclusterClient", .crypto, .lifecycle, .logging]
        ),
        library("Outbox", ["Schedules", "Core", "JSON", "Postgres", "Pulse", .lifecycle, .logging, .metrics]),
        library("Postgres", ["Schedules", "CLibPQ", "CLinux", "Core", "JSON", .lifecycle, .logging, .metrics]),
        library("Processes", ["CLinux", "Core"]),
        library("Pulse", ["Schedules", "CLinux", "CRabbitMQ", "Core", "JSON", .lifecycle, .logging, .metrics]),
        library("TaskclusterClient", ["Schedules", "Core", "HTTPClient", "JSON", "Taskcluster", .logging]),
        library("YAMLReader", ["CLibYAML", "JSON"]),

        // Domains.
        library(
            "BridgesKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "JSONSchema", "Outbox", "Postgres", "Pulse", "Schedules",
                "Taskcluster", .crypto, .lifecycle, .logging, .metrics,
            ],
            migrations: true
        ),
        library(
            "HooksKit",
            [
                "APIServer", "Core", "Expressions", "HTTPClient", "JSON", "JSONE", "JSONSchema", "Outbox", "Postgres",
                "Pulse",
                "Schedules", "Taskcluster", "TaskclusterClient", .crypto, .lifecycle, .logging, .metrics,
            ],
            migrations: true
        ),
        library(
            "LocalTaskclusterKit",
            [
                "APIServer", "CLinux", "Core", "HTTPClient", "JSON", "JSONE", "JSONSchema", "Outbox", "Postgres",
                "Pulse", "Schedules", "Taskcluster",
                .crypto, .lifecycle, .logging, .metrics,
            ],
            migrations: true
        ),
        library(
            "RollerActionsKit",
            [
                "Core", "HTTPClient", "JSON", "Outbox", "Postgres", "Processes", "Pulse", "RollerKit", "Schedules",
                "Taskcluster", "TaskclusterClient", .lifecycle, .logging, .metrics,
            ]
        ),
        library(
            "RollerKit",
            [
                "APIServer", "Core", "Expressions", "HTTPClient", "JSON", "JSONSchema", "Notices", "Outbox", "Postgres",
                "Pulse",
                "Schedules", "Taskcluster", "TaskclusterClient", .crypto, .lifecycle, .logging, .metrics,
            ],
            migrations: true,
            pages: true
        ),
        library(
            "PipelineKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "JSONE", "JSONSchema", "Notices", "Outbox", "Postgres",
                "Pulse",
                "Schedules", "StepKit", "Taskcluster", "TaskclusterClient", .lifecycle, .logging,
            ],
            migrations: true
        ),
        library(
            "ReleasesKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "JSONE", "PipelineKit", "Postgres", "Pulse", "Schedules",
                "StepKit", "Taskcluster", "TaskclusterClient", "YAMLReader", .crypto, .lifecycle, .logging,
            ],
            migrations: true
        ),
        library(
            "SignoffKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "Postgres", "Schedules", "StepKit", "Taskcluster", .crypto,
                .cryptoExtras, .lifecycle, .logging,
            ],
            migrations: true
        ),
        library(
            "StepKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "Outbox", "Postgres", "Pulse", "Schedules", "Taskcluster",
                .crypto, .jwt, .lifecycle, .logging, .metrics,
            ],
            migrations: true
        ),
        library(
            "TaskclusterStepKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "JSONE", "JSONSchema", "Postgres", "Pulse", "Schedules",
                "StepKit", "Taskcluster", "TaskclusterClient", "YAMLReader", .lifecycle, .logging,
            ],
            migrations: true
        ),
        library(
            "TriggersKit",
            [
                "APIServer", "BridgesKit", "Core", "HTTPClient", "HooksKit", "JSON", "JSONSchema", "Notices",
                "Postgres",
                "Pulse", "Schedules", "Taskcluster", "TaskclusterClient", .crypto, .lifecycle, .logging, .metrics,
            ],
            migrations: true
        ),
        library(
            "WorkerKit",
            [
                "CLinux", "CZlib", "Core", "HTTPClient", "JSON", "Processes", "Schedules", "Taskcluster",
                "TaskclusterClient", .crypto,
                .lifecycle,
                .logging,
            ]
        ),
        library(
            "ScriptworkerKit",
            [
                "CLinux", "Core", "Expressions", "HTTPClient", "JSON", "JSONE", "JSONSchema", "Processes", "Schedules",
                "Taskcluster",
                "TaskclusterClient", "WorkerKit", "YAMLReader", .crypto, .lifecycle, .logging,
            ]
        ),

        // Deployables.
        service("hooks-service", ["HooksKit"]),
        service("pulse-listener", ["BridgesKit", "HooksKit", "TriggersKit"]),
        service("roller-api", ["RollerActionsKit", "RollerKit"]),
        service("roller-worker", ["APIServer", "JSON", "Postgres", "RollerActionsKit", "RollerKit"]),
        service("scheduler", ["HooksKit"]),
        service("scriptworker", ["ScriptworkerKit"], examples: true),
        service("taskcluster-local", ["LocalTaskclusterKit"]),
        service("shipit-oidc-dev", ["APIServer", "JSON", "SignoffKit", "StepKit"]),
        service(
            "shipit-pipeline",
            [
                "APIServer", "JSON", "Notices", "PipelineKit", "Postgres", "ReleasesKit", "StepKit", "Taskcluster",
                "TaskclusterClient",
            ]
        ),
        service("shipit-signoff", ["APIServer", "JSON", "Postgres", "SignoffKit", "StepKit", "TaskclusterClient"]),
        service("shipit-step-check", ["HTTPClient", "JSON", "Schedules", "Taskcluster"], examples: true),
        service(
            "shipit-taskcluster",
            ["APIServer", "Postgres", "StepKit", "Taskcluster", "TaskclusterClient", "TaskclusterStepKit"]
        ),
        service("slipway", ["HTTPClient", "JSON", "JSONE", "Schedules", "Taskcluster", "TaskclusterClient"]),

        // Figures beside the peers'.
        .executableTarget(
            name: "slipway-bench",
            dependencies: [
                "Core", "JSON", "JSONE", "LocalTaskclusterKit", "Postgres", "Pulse", "Schedules", "Taskcluster",
                .lifecycle, .logging,
            ],
            path: "Tests/Benchmarks",
            exclude: [
                "celery_peer.py", "chain_peer.py", "context.json", "floor", "peers.js", "peers.py", "steps_peer.py",
                "template.json",
            ],
            swiftSettings: house,
            linkerSettings: lean
        ),

        // Tests.
        .target(
            name: "StepTestSupport",
            dependencies: ["APIServer", "Core", "HTTPClient", "JSON", "Schedules", "Taskcluster", .logging],
            path: "Tests/StepTestSupport",
            swiftSettings: house
        ),
        .target(
            name: "TestSupport",
            dependencies: ["Core", "HTTPClient", "JSON", "Postgres", "Pulse", "Schedules", "Taskcluster"],
            path: "Tests/TestSupport",
            swiftSettings: house
        ),
        tests(
            "APIServer",
            ["Core", "HTTPClient", "JSON", "JSONSchema", "Schedules", "Taskcluster", .lifecycle, .logging]
        ),
        tests(
            "BridgesKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "JSONSchema", "Outbox", "Postgres", "Pulse", "Schedules",
                "Taskcluster", "TestSupport", .lifecycle, .logging,
            ]
        ),
        tests("Core", ["JSON", "Schedules", .lifecycle, .logging, .metrics]),
        tests("DaemonCommand", ["Core", "HTTPClient", "JSON", "Schedules", "Taskcluster", "TestSupport"]),
        tests("Expressions", ["JSON"]),
        tests("HTTPClient", ["Core", "JSON", "TestSupport", .logging]),
        tests(
            "HooksKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "JSONE", "JSONSchema", "Outbox", "Postgres", "Pulse",
                "Schedules", "Taskcluster", "TaskclusterClient", "TestSupport", .lifecycle, .logging,
            ]
        ),
        tests("JSON", []),
        tests("JSONE", ["JSON", "Schedules"]),
        tests("JSONSchema", ["JSON"]),
        tests(
            "LocalTaskclusterKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "Outbox", "Postgres", "Pulse", "Schedules", "Taskcluster",
                "TaskclusterClient", "TestSupport", .lifecycle, .logging,
            ]
        ),
        tests(
            "PipelineKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "Notices", "Outbox", "Postgres", "Pulse", "Schedules",
                "StepKit", "StepTestSupport", "Taskcluster", "TaskclusterClient", "TestSupport", .crypto, .lifecycle,
                .logging,
            ]
        ),
        tests("Outbox", ["Core", "JSON", "Postgres", "Pulse", "Schedules", "TestSupport", .lifecycle]),
        tests("Postgres", ["Core", "JSON", "Schedules", "TestSupport", .lifecycle, .logging]),
        tests("Processes", ["Core"]),
        tests("Pulse", ["Core", "JSON", "TestSupport", .lifecycle, .logging]),
        tests("RollerActionsKit", ["Core", "HTTPClient", "JSON", "RollerKit"]),
        tests(
            "RollerKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "Notices", "Outbox", "Postgres", "Pulse", "Schedules",
                "Taskcluster", "TaskclusterClient", "TestSupport", .crypto, .lifecycle, .logging,
            ]
        ),
        tests(
            "ReleasesKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "PipelineKit", "Postgres", "Pulse", "Schedules",
                "SignoffKit", "StepKit", "StepTestSupport", "Taskcluster", "TaskclusterClient", "TestSupport",
                .lifecycle,
                .logging,
            ]
        ),
        tests("Schedules", []),
        tests(
            "ScriptworkerKit",
            [
                "Core", "Expressions", "HTTPClient", "JSON", "Processes", "Schedules", "Taskcluster",
                "TaskclusterClient", "WorkerKit",
                "YAMLReader", .crypto,
            ]
        ),
        tests(
            "SignoffKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "Outbox", "Postgres", "Pulse", "Schedules", "StepKit",
                "StepTestSupport", "Taskcluster", "TestSupport", .crypto, .cryptoExtras, .lifecycle, .logging,
            ]
        ),
        tests("Taskcluster", ["JSON", "Schedules"]),
        tests("TaskclusterClient", ["Core", "HTTPClient", "JSON", "Schedules", "Taskcluster"]),
        tests(
            "TaskclusterStepKit",
            [
                "APIServer", "Core", "HTTPClient", "JSON", "Outbox", "Postgres", "Pulse", "Schedules", "StepKit",
                "StepTestSupport", "Taskcluster", "TaskclusterClient", "TestSupport", .lifecycle, .logging,
            ]
        ),
        tests(
            "TriggersKit",
            [
                "APIServer", "BridgesKit", "Core", "HTTPClient", "HooksKit", "JSON", "JSONSchema", "Notices",
                "Postgres",
                "Pulse", "Schedules", "Taskcluster", "TaskclusterClient", "TestSupport", .lifecycle, .logging,
            ]
        ),
        tests(
            "WorkerKit",
            ["Core", "HTTPClient", "JSON", "Processes", "Schedules", "Taskcluster", "TaskclusterClient"]
        ),
    ]
)
