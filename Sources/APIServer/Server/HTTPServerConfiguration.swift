// SPDX-License-Identifier: MPL-2.0

public import Core

/// How a server listens and what it believes.
///
/// ## Configuration keys
/// - `HTTP_HOST`: the address to listen on; default `127.0.0.1`.
/// - `HTTP_PORT` or `PORT`: the port; 0 lets the system choose.
/// - `KEEP_ALIVE_TIMEOUT_SECONDS`: how long an idle connection is kept; default `90`, has to exceed a proxy's.
/// - `TRUSTED_PROXIES` or `TRUST_PROXY`: whose `X-Forwarded-For` tells the caller's address and whose `X-Forwarded-Proto`
///   the scheme it used, see ``ProxyTrust``; default nobody's.
/// - `FORCE_SSL`: whether plain requests are redirected to https; default `false`. Needs trusted proxies, since TLS ends
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
    /// From whom the caller's address and scheme are taken.
    public var trust = ProxyTrust.nobody
    /// Whether, where no proxies are named, anybody may tell the port that a request was signed for.
    ///
    /// Taskcluster's services work that way, and it opens nothing: a signature that is made for another port has to be made
    /// by somebody who has the key.
    public var believesSignedPort = true
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
        trust = ProxyTrust(settings: settings)
        forcesTLS = settings.bool("force.ssl", default: false, "redirect plain requests to https")
        if forcesTLS, trust == .nobody {
            settings.fail(
                "force.ssl",
                "needs TRUSTED_PROXIES or TRUST_PROXY=true: the proxy in front has to say which requests used https"
            )
        }
    }
}
