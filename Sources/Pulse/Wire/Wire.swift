// SPDX-License-Identifier: MPL-2.0

import CLinux
import CRabbitMQ
import Glibc

/// One open connection of the C library.
///
/// Owned by the connection's thread; freed with this value.
struct Wire: ~Copyable {
    /// How the library calls the connection.
    let state: amqp_connection_state_t
    /// The socket, to sleep on.
    let descriptor: Int32
    /// Whether bytes may wait inside the TLS layer where `poll` does not see them.
    let isSecure: Bool
    /// The highest channel number the broker agreed to.
    let channelLimit: Int
    /// The heartbeat both sides agreed to, in milliseconds; 0 for none.
    let heartbeatMilliseconds: Int32

    /// Resolves, connects, shakes hands and logs in.
    init(_ configuration: PulseConfiguration, name: String, arena: inout Arena) throws(PulseError) {
        guard let state = amqp_new_connection() else {
            throw PulseError(.connectionLost, "cannot connect to the broker: out of memory")
        }
        do throws(PulseError) {
            try Self.openSocket(state, configuration, &arena)
            try Self.login(state, configuration, name, &arena)
        } catch {
            amqp_destroy_connection(state)
            throw error
        }
        self.state = state
        descriptor = amqp_get_sockfd(state)
        isSecure = configuration.tls != nil
        channelLimit = Int(amqp_get_channel_max(state))
        heartbeatMilliseconds = amqp_get_heartbeat(state) * 1000
        Self.tune(descriptor)
    }

    deinit {
        amqp_destroy_connection(state)
    }

    private static func openSocket(
        _ state: amqp_connection_state_t,
        _ configuration: PulseConfiguration,
        _ arena: inout Arena
    ) throws(PulseError) {
        let socket =
            if let tls = configuration.tls {
                try secureSocket(state, tls, &arena)
            } else {
                amqp_tcp_socket_new(state)
            }
        guard let socket else { throw PulseError(.connectionLost, "cannot connect to the broker: out of memory") }
        var timeout = timeval(configuration.connectTimeout)
        let status = amqp_socket_open_noblock(
            socket,
            arena.cString(configuration.host),
            Int32(configuration.port),
            &timeout
        )
        guard status == amqpOK else {
            let place = "\(configuration.host):\(configuration.port)"
            throw PulseError(.connectionLost, "cannot connect to the broker at \(place): \(libraryText(status))")
        }
        amqp_set_handshake_timeout(state, &timeout)
        amqp_set_rpc_timeout(state, &timeout)
    }

    private static func secureSocket(
        _ state: amqp_connection_state_t,
        _ tls: PulseTLS,
        _ arena: inout Arena
    ) throws(PulseError) -> OpaquePointer? {
        guard let socket = amqp_ssl_socket_new(state) else { return nil }
        amqp_ssl_socket_set_verify_peer(socket, tls.verifiesPeer ? 1 : 0)
        amqp_ssl_socket_set_verify_hostname(socket, tls.verifiesPeer ? 1 : 0)
        amqp_ssl_socket_set_ssl_versions(socket, AMQP_TLSv1_2, AMQP_TLSvLATEST)
        if tls.verifiesPeer {
            guard let file = tls.authorityFile ?? systemAuthorities() else {
                throw PulseError(.invalidArgument, "cannot speak TLS with the broker: name a file of authorities")
            }
            guard amqp_ssl_socket_set_cacert(socket, arena.cString(file)) == amqpOK else {
                throw PulseError(
                    .invalidArgument,
                    "cannot speak TLS with the broker: cannot read authorities of \(file)"
                )
            }
        }
        if let identity = tls.identity {
            let status = amqp_ssl_socket_set_key(
                socket,
                arena.cString(identity.certificateFile),
                arena.cString(identity.keyFile)
            )
            guard status == amqpOK else {
                let file = identity.certificateFile
                throw PulseError(.invalidArgument, "cannot speak TLS with the broker: cannot use the key of \(file)")
            }
        }
        return socket
    }

    /// Where distributions keep the authorities they trust.
    private static func systemAuthorities() -> String? {
        let known = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"]
        let chosen = getenv("SSL_CERT_FILE").map { String(cString: $0) }
        return ([chosen].compactMap { $0 } + known).first { access($0, R_OK) == 0 }
    }

    private static func login(
        _ state: amqp_connection_state_t,
        _ configuration: PulseConfiguration,
        _ name: String,
        _ arena: inout Arena
    ) throws(PulseError) {
        var properties = arena.table([
            ("connection_name", .text(name)),
            (
                "capabilities",
                .table([
                    ("basic.nack", .flag(true)),
                    ("connection.blocked", .flag(true)),
                    ("consumer_cancel_notify", .flag(true)),
                    ("publisher_confirms", .flag(true)),
                ])
            ),
        ])
        let reply = crabbitmq_login_plain(
            state,
            arena.cString(configuration.virtualHost),
            0,
            131072,
            Int32(max(1, configuration.heartbeat.components.seconds)),
            &properties,
            arena.cString(configuration.user),
            arena.cString(configuration.password)
        )
        if let error = Self.failure(reply, "log in to the broker as \(configuration.user)") { throw error }
    }

    /// The error in a reply, if it is one.
    static func failure(_ reply: amqp_rpc_reply_t, _ action: String) -> PulseError? {
        switch reply.reply_type {
        case AMQP_RESPONSE_NORMAL:
            return nil
        case AMQP_RESPONSE_SERVER_EXCEPTION:
            if reply.reply.id == crabbitmq_connection_close, let decoded = reply.reply.decoded {
                let close = decoded.assumingMemoryBound(to: amqp_connection_close_t.self).pointee
                return PulseError(replyCode: Int(close.reply_code), text: String(close.reply_text), during: action)
            }
            return PulseError(.brokerFailure, "cannot \(action): unexpected answer")
        default:
            return PulseError(.connectionLost, "cannot \(action): \(libraryText(reply.library_error))")
        }
    }

    /// Lets the kernel give a dead peer up in the time heartbeats would, also while a write is stuck.
    private static func tune(_ descriptor: Int32) {
        var milliseconds: UInt32 = 60_000
        setsockopt(
            descriptor,
            Int32(IPPROTO_TCP),
            TCP_USER_TIMEOUT,
            &milliseconds,
            socklen_t(MemoryLayout<UInt32>.size)
        )
    }

    /// Says good-bye and waits a moment for the answer.
    func close() {
        var timeout = timeval(tv_sec: 2, tv_usec: 0)
        amqp_set_rpc_timeout(state, &timeout)
        _ = amqp_connection_close(state, 200)
    }
}

/// The status of the library that means success.
let amqpOK = Int32(AMQP_STATUS_OK.rawValue)

/// The status of the library that means that nothing came in time.
let amqpTimeout = Int32(AMQP_STATUS_TIMEOUT.rawValue)

/// What the library says about a status.
func libraryText(_ status: Int32) -> String {
    amqp_error_string2(status).map { String(cString: $0) } ?? "status \(status)"
}

extension timeval {
    init(_ duration: Duration) {
        let parts = duration.components
        self.init(tv_sec: Int(parts.seconds), tv_usec: Int(parts.attoseconds / 1_000_000_000_000))
    }
}
