// SPDX-License-Identifier: MPL-2.0

import Core
import Pulse
import ServiceLifecycle

/// Keeps the exchanges of bridges declared.
///
/// Messages for an exchange that is missing wait in the outbox, so a broker that was built anew gets it again within a
/// minute and then its messages.
struct BridgeExchanges: Service {
    let pulse: PulseConnection
    let names: [String]

    func run() async throws {
        try await PeriodicService(name: "exchanges of bridges", every: .seconds(60)) {
            for name in names { try await pulse.declareExchange(name) }
        }.run()
    }
}
