// SPDX-License-Identifier: MPL-2.0

import Core
public import Notices
public import Pulse
public import ServiceLifecycle
import StepKit

extension PipelineService {
    /// What delivers the notices of pipelines, and forgets old ones.
    public func noticeServices(sender: NoticeSender, pulse: PulseConnection) -> [any Service] {
        let queue = notices.queue
        let watch = StuckWatch(self)
        return [
            StepExchangeDeclaration(pulse: pulse, exchange: notices.exchange),
            NoticeCourier(store: queue, sender: sender),
            PeriodicService(name: "tell-of-stuck", every: .seconds(30)) { try await watch.tell() },
            PeriodicService(name: "sweep-notices", every: .seconds(3600)) { try await queue.sweep() },
        ]
    }
}
