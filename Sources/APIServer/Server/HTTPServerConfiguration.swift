// SPDX-License-Identifier: MPL-2.0

public import Core

/// How a server listens and what it believes.
///
/// ## Configuration keys
/// - `HTTP_HOST`: the address to listen on; default `127.0.0.1`.
/// - `HTTP_PORT` or `PORT`: the port; 0 lets the system choose.
/// - `KEEP_ALIVE_TIMEOUT_SECONDS`: how long an idle connection is kept; default `90`, has to exceed a proxy's.
/// - `TRUST_PROXY`: whether `X-Forwarded-For` tells the caller's address and `X-Forwarded-Proto` the scheme it used;
///   default `false`.
/// - `FORCE_SSL`: whether plain requests are redirected to https; default `false`. Needs `TRUST_PROXY`, since TLS ends
///   at a proxy.
public struct HTTPServerConfiguration: Sendable {
    /// The address to listen on.
    public var host: String
    /// The port to listen on; 0 lets the system choose.
    public var port: Int
    /// The longest body of an API request, in bytes.
    public var bodyLimit = 10 << 20
    /// How long an idle connection is kept.
    public var keepAlive: Duration = .seconds(90)
    /// Whether the caller's address and scheme are taken from what a proxy says.
    public var trustsProxy = false
    /// Whether plain requests are redirected to https.
    public var forcesTLS = false
    /// The web pages, as origins, whose scripts may call; nil lets the scripts of all pages call.
    public var allowedOrigins: Set<String>?

    /// Describes a server with the defaults of everything else.
    public init(host: String = "127.0.0.1", port: Int = 0) {
        self.host = host
        self.port = port
    }

    /// Reads the configuration keys; problems are collected by the settings.
    public init(settings: Settings, defaultPort: Int = 0) {
        host = settings.string("http.host", default: "127.0.0.1", "address to listen on")
        port = settings.int("http.port", default: defaultPort, in: 0...65535, "port to listen on, 0 for any")
        keepAlive = settings.duration(
            "keep.alive.timeout.seconds",
            default: .seconds(90),
            in: .seconds(1)...(.seconds(3600)),
            "how long an idle connection is kept"
        )
        trustsProxy = settings.bool("trust.proxy", default: false, "believe X-Forwarded-For and X-Forwarded-Proto")
        forcesTLS = settings.bool("force.ssl", default: false, "redirect plain requests to https")
        if forcesTLS, !trustsProxy {
            settings.fail(
                "force.ssl",
                "needs TRUST_PROXY=true: the proxy in front has to say which requests used https"
            )
        }
    }
}
