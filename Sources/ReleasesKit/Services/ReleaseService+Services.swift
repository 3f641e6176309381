// SPDX-License-Identifier: MPL-2.0

import Core
import PipelineKit
public import Pulse
public import ServiceLifecycle
import StepKit

extension ReleaseService {
    /// What looks after releases beside their pipelines.
    public func services(pulse: PulseConnection) -> [any Service] {
        [
            StepExchangeDeclaration(pulse: pulse, exchange: place.detailsExchange),
            PeriodicService(name: "release-phases", every: .seconds(1)) { try await callForWaiting() },
            PeriodicService(name: "release-pipelines", every: .seconds(2)) { try await makePipelines() },
        ] + runnerServices
    }

    /// Begins releases of the first version, where a product says how.
    private var runnerServices: [any Service] {
        guard catalogue.products.values.contains(where: { $0.runner != nil }) else { return [] }
        let runner = ReleaseRunner(service: self)
        return [PeriodicService(name: "release-runner", every: .seconds(5)) { try await runner.runOnce() }]
    }
}
