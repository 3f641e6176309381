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
        ]
    }
}
