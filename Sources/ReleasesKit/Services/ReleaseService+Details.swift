// SPDX-License-Identifier: MPL-2.0

import JSON
import Postgres
import PipelineKit
import Pulse
import StepKit

extension ReleaseService {
    /// Asks for the public lists of versions to be made anew, in the transaction that is open on the connection.
    func rebuildDetails(_ options: JSONObject, on connection: PostgresConnection) async throws {
        let message = PulseMessage(
            exchange: place.detailsExchange,
            routingKey: "rebuild_product_details",
            payload: .object(options)
        )
        try await pipelines.pipelineStore.outbox.add([message], on: connection)
    }

    /// Asks for the public lists of versions to be made anew.
    func rebuildDetails(_ options: JSONObject, by caller: Caller) async throws {
        try await pipelines.pipelineStore.pool.transaction { connection in
            try await rebuildDetails(options, on: connection)
            let journal = pipelines.journal
            try await journal.write("product_details_rebuilt", "product-details", by: caller.name, on: connection)
        }
        pipelines.pipelineStore.outbox.wake()
    }
}
