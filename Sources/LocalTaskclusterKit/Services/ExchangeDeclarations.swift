// SPDX-License-Identifier: MPL-2.0
import Logging
import Pulse
import ServiceLifecycle

/// Declares our exchanges as soon as the broker can be reached.
struct ExchangeDeclarations: Service {
    let pulse: PulseConnection
    let exchanges: [String]

    func run() async throws {
        await cancelWhenGracefulShutdown {
            for name in exchanges { await declare(name) }
        }
        // A service that returns early would end the process.
        try? await gracefulShutdown()
    }

    private func declare(_ exchange: String) async {
        while !Task.isCancelled {
            do {
                return try await pulse.declareExchange(exchange)
            } catch {
                Logger.current.warning(
                    "cannot declare an exchange yet",
                    metadata: ["exchange": "\(exchange)", "error": "\(error)"]
                )
                try? await Task.sleep(for: .seconds(2))
            }
        }
    }
}
