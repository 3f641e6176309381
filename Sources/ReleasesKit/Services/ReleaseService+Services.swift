// SPDX-License-Identifier: MPL-2.0

import Core
import Logging
import PipelineKit
import Postgres
public import Pulse
public import ServiceLifecycle
import StepKit
import Synchronization

extension ReleaseService {
    /// What looks after releases beside their pipelines.
    public func services(pulse: PulseConnection) -> [any Service] {
        let watch = RevocationWatch(self)
        return [
            StepExchangeDeclaration(pulse: pulse, exchange: place.detailsExchange),
            PeriodicService(name: "release-phases", every: .seconds(1)) { try await callForWaiting() },
            PeriodicService(name: "release-revocations", every: .seconds(1)) { try await watch.look() },
            PeriodicService(name: "release-pipelines", every: .seconds(2)) { try await makePipelines() },
        ] + runnerServices
    }

    /// Says what went wrong with one release, and throws what goes wrong with all.
    static func goOn(after error: any Error, _ name: String) throws {
        try Task.checkCancellation()
        if let error = error as? PostgresError, error.isConnectionFailure || error.code == .poolClosed { throw error }
        // A pipeline that somebody has deleted says nothing new each time.
        let isGone = (error as? StepProblem)?.status == 404
        Logger.current.log(
            level: isGone ? .debug : .warning,
            "a release is not looked after",
            metadata: ["release": "\(name)", "error": "\(error)"]
        )
    }

    /// Begins releases of the first version, where a product says how.
    private var runnerServices: [any Service] {
        guard catalogue.products.values.contains(where: { $0.runner != nil }) else { return [] }
        let runner = ReleaseRunner(service: self)
        return [PeriodicService(name: "release-runner", every: .seconds(5)) { try await runner.runOnce() }]
    }
}

/// Looks whether anybody was revoked since the last look, and only then at what they had signed.
final class RevocationWatch: Sendable {
    private let service: ReleaseService
    private let last = Mutex(0)

    init(_ service: ReleaseService) {
        self.service = service
    }

    func look() async throws {
        let number = try await service.revocations.last()
        guard number > last.withLock({ $0 }) else { return }
        try await service.writeDownRevocations()
        last.withLock { $0 = max($0, number) }
    }
}
