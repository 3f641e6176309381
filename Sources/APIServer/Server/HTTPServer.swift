// SPDX-License-Identifier: MPL-2.0

public import Core
import Glibc
import HTTPTypes
import HummingbirdCore
import Logging
import NIOCore
import NIOPosix
public import ServiceLifecycle
import Synchronization
public import Taskcluster

/// An HTTP/1.1 server for APIs, raw routes and proxied neighbours.
///
/// On graceful shutdown it stops accepting connections, finishes the requests it has begun, and returns.
public struct HTTPServer: Service {
    private let configuration: HTTPServerConfiguration
    private let name: String
    private let dispatcher: Dispatcher
    private let listening = Listening()

    /// One loop carries thousands of connections; handlers run on the cooperative pool, not on it.
    private static let loops = MultiThreadedEventLoopGroup(numberOfThreads: 1)

    /// Puts a server together, without opening anything.
    ///
    /// - Parameters:
    ///   - configuration: Where to listen and what to believe.
    ///   - name: The label of logs.
    ///   - rootURL: What clients put before every path; goes into references and schemas.
    ///   - apis: The APIs to serve.
    ///   - authenticator: Who checks credentials; required as soon as an endpoint has scopes.
    ///   - health: The checks behind the heartbeat.
    ///   - raw: Streaming routes outside the APIs.
    ///   - proxies: Parts of the address space that other servers answer.
    public init(
        configuration: HTTPServerConfiguration,
        name: String,
        rootURL: String?,
        apis: [API],
        authenticator: (any RequestAuthenticator)?,
        health: HealthRegistry,
        raw: [RawRoute] = [],
        proxies: [ProxyRoute] = []
    ) {
        self.configuration = configuration
        self.name = name
        dispatcher = Dispatcher(
            configuration: configuration,
            rootURL: rootURL,
            apis: apis,
            authenticator: authenticator,
            health: HealthEndpoints(health: health),
            raw: raw,
            proxies: proxies
        )
    }

    /// Listens until graceful shutdown or cancellation.
    public func run() async throws {
        defer { listening.end() }
        try dispatcher.checkSchemas()
        let logger = Logger(label: name)
        var quiet = logger
        quiet.logLevel = max(logger.logLevel, .warning)
        let channel = HTTP1Channel.Configuration(
            additionalChannelHandlers: [ConnectionWatch()],
            idleTimeout: .nanoseconds(configuration.keepAlive.wholeNanoseconds),
            httpDecoderConfiguration: .init(maxHeaderFieldSize: 128 << 10, maxHeaderListSize: 128 << 10)
        )
        let trustsAnybody = configuration.trust == .anybody
        let server = Server(
            childChannelSetup: HTTP1Channel(
                responder: { [dispatcher] in try await dispatcher.serve($0, $1, $2) },
                configuration: channel
            ),
            configuration: ServerConfiguration(
                address: .hostname(configuration.host, port: configuration.port),
                backlog: 1024
            ),
            onServerRunning: { [listening] channel in
                let port = channel.localAddress?.port ?? 0
                logger.notice("listening", metadata: ["port": .stringConvertible(port)])
                if trustsAnybody {
                    logger.warning(
                        "X-Forwarded-* is believed from anybody; TRUSTED_PROXIES can name the proxies instead"
                    )
                }
                listening.begin(port)
            },
            eventLoopGroup: Self.loops,
            logger: quiet
        )
        do {
            try await Self.run(server)
        } catch  where !listening.hasBegun {
            throw ListenError(host: configuration.host, port: configuration.port, cause: error)
        }
    }

    /// Runs a server so that cancelling it never drops a connection that was just accepted.
    ///
    /// The channel of such a connection would end the process. So a cancelled server first stops to accept, like one
    /// that shuts down gracefully, and what goes on after a moment is cancelled then.
    private static func run(_ server: Server<HTTP1Channel>) async throws {
        // A task of its own is out of reach of the cancellation.
        let running = Task { try await server.run() }
        try await withTaskCancellationHandler {
            try await running.value
        } onCancel: {
            // Cancellation handlers cannot wait.
            Task {
                try? await withThrowingTaskGroup(of: Void.self) { group in
                    group.addTask { try await server.shutdownGracefully() }
                    group.addTask {
                        try await Task.sleep(for: .milliseconds(500))
                        running.cancel()
                    }
                    try await group.next()
                    group.cancelAll()
                }
            }
        }
    }

    /// The port the server listens on, as soon as it does; 0 if it ended without.
    public func waitUntilListening() async -> Int {
        await listening.port()
    }
}

/// The server cannot listen where it should.
struct ListenError: Error, CustomStringConvertible {
    let description: String

    init(host: String, port: Int, cause: any Error) {
        let place = "cannot listen on \(host):\(port)"
        switch (cause as? IOError)?.errnoCode {
        case EADDRINUSE:
            description = "\(place): another process listens there; stop it or choose another HTTP_PORT"
        case EACCES:
            description = "\(place): this port is not open to this user; choose another HTTP_PORT"
        case EADDRNOTAVAIL:
            description = "\(place): this machine has no such address; choose another HTTP_HOST"
        case let code?:
            description = "\(place): \(String(cString: strerror(code))); check HTTP_HOST and HTTP_PORT"
        case nil:
            description = "\(place): \(cause); check HTTP_HOST and HTTP_PORT"
        }
    }
}

/// Tells those who wait for it that the server listens.
private final class Listening: Sendable {
    private struct State {
        var port: Int?
        var waiters: [CheckedContinuation<Int, Never>] = []
    }

    private let state = Mutex(State())

    var hasBegun: Bool { state.withLock { $0.port != nil } }

    func begin(_ port: Int) {
        let waiters = state.withLock { state in
            guard state.port == nil else { return [CheckedContinuation<Int, Never>]() }
            state.port = port
            defer { state.waiters = [] }
            return state.waiters
        }
        for waiter in waiters {
            waiter.resume(returning: port)
        }
    }

    func end() {
        begin(0)
    }

    func port() async -> Int {
        await withCheckedContinuation { continuation in
            let known: Int? = state.withLock { state in
                if state.port == nil { state.waiters.append(continuation) }
                return state.port
            }
            if let known {
                continuation.resume(returning: known)
            }
        }
    }
}

extension Duration {
    fileprivate var wholeNanoseconds: Int64 {
        components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000
    }
}
