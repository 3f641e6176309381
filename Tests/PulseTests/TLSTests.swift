// SPDX-License-Identifier: MPL-2.0

import Glibc
import Pulse
import Synchronization
import TestSupport
import Testing

/// A TLS end in front of the broker, with an authority of its own that has signed certificates for both sides.
private struct TLSRelay {
    let port: Int
    let folder: String
    private let process: pid_t

    /// Makes the certificates with the `openssl` command, then copies bytes between TLS clients and the broker.
    private static let script = """
        import asyncio, os, ssl, subprocess, sys
        folder, host, port, name, wants_client = sys.argv[1:6]
        os.chdir(folder)
        def openssl(*arguments):
            subprocess.run(['openssl', *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
                '-subj', '/CN=test authority',
                '-addext', 'basicConstraints=critical,CA:TRUE', '-keyout', 'ca.key', '-out', 'ca.pem')
        for who, common in (('server', name), ('client', 'client')):
            with open(who + '.ext', 'w') as file:
                file.write('subjectAltName=DNS:' + common)
            openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
                    '-subj', '/CN=' + common, '-keyout', who + '.key', '-out', who + '.csr')
            openssl('x509', '-req', '-in', who + '.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial',
                    '-days', '2', '-extfile', who + '.ext', '-out', who + '.pem')
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain('server.pem', 'server.key')
        if wants_client == 'yes':
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations('ca.pem')
        async def copy(reader, writer):
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            except OSError:
                pass
            writer.close()
        async def serve(reader, writer):
            broker = await asyncio.open_connection(host, int(port))
            await asyncio.gather(copy(reader, broker[1]), copy(broker[0], writer))
        async def main():
            server = await asyncio.start_server(serve, '127.0.0.1', 0, ssl=context)
            with open('port.new', 'w') as file:
                file.write(str(server.sockets[0].getsockname()[1]))
            os.rename('port.new', 'port')
            await server.serve_forever()
        asyncio.run(main())
        """

    init(name: String, wantsClientCertificate: Bool) async throws {
        let broker = try PulseConfiguration(url: Broker.url)
        var template = Array("/tmp/slipway-tls-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw NotInTime(what: "a folder for certificates") }
        folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let arguments = [
            "python3", "-c", Self.script, folder, broker.host, "\(broker.port)", name,
            wantsClientCertificate ? "yes" : "no",
        ]
        var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for pointer in pointers { free(pointer) } }
        var process = pid_t()
        guard posix_spawnp(&process, "python3", nil, nil, &pointers, environ) == 0 else {
            throw NotInTime(what: "python3 starts")
        }
        self.process = process
        let file = folder + "/port"
        do {
            try await eventually("the TLS relay listens", within: .seconds(40)) { access(file, R_OK) == 0 }
            port = try Self.number(in: file)
        } catch {
            kill(process, SIGKILL)
            throw error
        }
    }

    private static func number(in file: String) throws -> Int {
        let descriptor = open(file, O_RDONLY)
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: 16)
        let count = read(descriptor, &buffer, buffer.count)
        guard count > 0, let number = Int(String(decoding: buffer[..<count], as: UTF8.self)) else {
            throw NotInTime(what: "the relay's port")
        }
        return number
    }

    func stop() {
        kill(process, SIGKILL)
        var status: Int32 = 0
        waitpid(process, &status, 0)
        for name in ["ca", "server", "client"] {
            for kind in ["pem", "key", "csr", "ext", "srl"] { unlink("\(folder)/\(name).\(kind)") }
        }
        unlink(folder + "/port")
        rmdir(folder)
    }
}

@Suite(.timeLimit(.minutes(5)))
struct TLSTests {
    private func withRelay(
        name: String = "localhost",
        wantsClientCertificate: Bool = false,
        _ body: (TLSRelay) async throws -> Void
    ) async throws {
        let relay = try await TLSRelay(name: name, wantsClientCertificate: wantsClientCertificate)
        defer { relay.stop() }
        try await body(relay)
    }

    private func configure(
        _ relay: TLSRelay,
        _ change: (inout PulseTLS) -> Void = { $0.verifiesPeer = true }
    ) throws -> PulseConfiguration {
        var configuration = try PulseConfiguration(url: Broker.url)
        configuration.host = "localhost"
        configuration.port = relay.port
        var tls = PulseTLS()
        tls.authorityFile = relay.folder + "/ca.pem"
        change(&tls)
        configuration.tls = tls
        return configuration
    }

    private func isReachable(_ configuration: PulseConfiguration) async -> Bool {
        let pulse = PulseConnection(configuration, name: "tls test")
        var isReachable = true
        do { try await pulse.checkHealth() } catch { isReachable = false }
        await pulse.shutDown()
        return isReachable
    }

    @Test func `thousands of messages go through TLS in both directions, large ones too`() async throws {
        try await withRelay { relay in
            let configuration = try configure(relay)
            try await Broker.lend(configure: { $0 = configuration }) { pulse, exchange, queue in
                let seen = Mutex<[Int: Int]>([:])
                let wanted = PulseSubscription(
                    queue: PulseQueue(queue),
                    bindings: [PulseBinding(exchange: exchange, routingKeyPattern: "#")],
                    prefetch: 100
                )
                try await consuming(pulse, wanted) { delivery in
                    seen.withLock { $0[delivery.body.count, default: 0] += 1 }
                    return .ack
                } while: {
                    let small = [UInt8](repeating: 120, count: 700)
                    let large = [UInt8](repeating: 121, count: 700_000)
                    try await pulse.publish(
                        (0..<3000).map { number in
                            PulseMessage(exchange: exchange, routingKey: "k", body: number % 500 == 0 ? large : small)
                        }
                    )
                    try await eventually("all arrive") { seen.withLock { $0[700] == 2994 && $0[700_000] == 6 } }
                }
            }
        }
    }

    @Test func `a broker whose certificate nobody trusted has signed is not spoken to`() async throws {
        try await withRelay { relay in
            let strict = try await isReachable(configure(relay) { $0.authorityFile = nil })
            #expect(!strict)
            let lax = try await isReachable(configure(relay) { $0.verifiesPeer = false })
            #expect(lax)
        }
    }

    @Test func `a certificate of another host is not accepted`() async throws {
        try await withRelay(name: "elsewhere.example") { relay in
            let other = try await isReachable(configure(relay))
            #expect(!other)
        }
    }

    @Test func `a broker that asks for a client certificate gets it`() async throws {
        try await withRelay(wantsClientCertificate: true) { relay in
            let anonymous = try await isReachable(configure(relay))
            #expect(!anonymous)
            let identity = PulseTLS.Identity(
                certificateFile: relay.folder + "/client.pem",
                keyFile: relay.folder + "/client.key"
            )
            let named = try await isReachable(configure(relay) { $0.identity = identity })
            #expect(named)
        }
    }
}
