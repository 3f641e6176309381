// SPDX-License-Identifier: MPL-2.0
import Logging
import Pulse
import ServiceLifecycle

/// Declares our exchanges as soon as the broker can be reached.
struct ExchangeDeclarations: Service {
    let pulse: PulseConnection
    let exchanges: [String]

    func run() async throws {
        do {
            try await cancelWhenGracefulShutdown {
                for name in exchanges { try await declare(name) }
            }
        } catch is CancellationError {
            // The shutdown came before the broker.
            return
        }
        // A service that returns early would end the process.
        try? await gracefulShutdown()
    }

    private func declare(_ exchange: String) async throws {
        while true {
            do {
                return try await pulse.declareExchange(exchange)
            } catch {
                Logger.current.warning(
                    "cannot declare an exchange yet",
                    metadata: ["exchange": "\(exchange)", "error": "\(error)"]
                )
                try await Task.sleep(for: .seconds(2))
            }
        }
    }
}
