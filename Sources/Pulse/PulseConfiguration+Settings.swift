// SPDX-License-Identifier: MPL-2.0

public import Core

extension PulseConfiguration {
    /// Reads the broker's place from the settings, noting problems there.
    ///
    /// Either `AMQP_URL`, or `PULSE_HOSTNAME`, `PULSE_USERNAME`, `PULSE_PASSWORD`, and optionally `PULSE_VHOST` (default
    /// `/`), `PULSE_PORT` and `PULSE_AMQPS` (default true). With both forms `PULSE_NAMESPACE` (default: the user name)
    /// and `PULSE_CA_FILE`.
    public init(settings: Settings) {
        if let url = settings.optional("amqp.url", secret: true, "the broker, amqp(s)://user:password@host:port/vhost")
        {
            do {
                try self.init(url: url)
            } catch {
                settings.fail("amqp.url", String(error.message.trimmingPrefix("AMQP URL: ")))
                self.init(host: "localhost", user: "guest", password: "guest")
            }
        } else {
            let host = settings.required("pulse.hostname", "the broker's host, unless AMQP_URL is set")
            let user = settings.required("pulse.username", "the broker's user name, unless AMQP_URL is set")
            let password = settings.required("pulse.password", secret: true, "its password, unless AMQP_URL is set")
            let isSecure = settings.bool("pulse.amqps", default: true, "whether the broker is spoken to with TLS")
            let port = settings.int(
                "pulse.port",
                default: isSecure ? 5671 : 5672,
                in: 1...65535,
                "the broker's port"
            )
            self.init(
                host: host,
                port: port,
                user: user,
                password: password,
                virtualHost: settings.string("pulse.vhost", default: "/", "the virtual host"),
                tls: isSecure ? PulseTLS() : nil
            )
        }
        if let namespace = settings.optional("pulse.namespace", "the middle part of exchange and queue names") {
            self.namespace = namespace
        }
        if let file = settings.path("pulse.ca.file", "a PEM file of trusted authorities") {
            tls?.authorityFile = file
        }
    }
}
