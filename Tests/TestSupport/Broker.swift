// SPDX-License-Identifier: MPL-2.0

import Glibc
public import Pulse

/// The broker the tests talk to; it must be there, nothing is skipped.
public enum Broker {
    /// The URL from `SLIPWAY_TEST_AMQP_URL`.
    public static var url: String {
        guard let url = getenv("SLIPWAY_TEST_AMQP_URL").map({ String(cString: $0) }), !url.isEmpty else {
            preconditionFailure("set SLIPWAY_TEST_AMQP_URL to the AMQP URL of a broker for tests")
        }
        return url
    }

    /// A name nobody else uses, to tell tests of one broker apart.
    public static func uniqueName() -> String {
        "test-\(getpid())-\(UInt64.random(in: 0..<1 << 48))"
    }

    /// Lends a connection and the names of an exchange and a queue, both removed afterwards.
    ///
    /// The exchange exists; the queue is up to the body. Other queues and exchanges are removed by naming them `queue` or
    /// `exchange` with a suffix of `suffixes`.
    public static func lend<Result>(
        name: String = "test",
        suffixes: [String] = [],
        configure: (inout PulseConfiguration) -> Void = { _ in },
        _ body: (_ pulse: PulseConnection, _ exchange: String, _ queue: String) async throws -> Result
    ) async throws -> Result {
        var configuration = try PulseConfiguration(url: url)
        configure(&configuration)
        let pulse = PulseConnection(configuration, name: name)
        let unique = uniqueName()
        let exchange = "exchange/\(configuration.namespace)/v1/\(unique)"
        let queue = "queue/\(configuration.namespace)/\(unique)"
        func cleanUp() async {
            for suffix in [""] + suffixes {
                _ = try? await pulse.deleteQueue(queue + suffix)
                try? await pulse.deleteExchange(exchange + suffix)
            }
            await pulse.shutDown()
        }
        do {
            try await pulse.declareExchange(exchange)
            let result = try await body(pulse, exchange, queue)
            await cleanUp()
            return result
        } catch {
            await cleanUp()
            throw error
        }
    }
}
