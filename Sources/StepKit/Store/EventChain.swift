// SPDX-License-Identifier: MPL-2.0

package import Postgres

/// Events that carry the digests of those before them.
package enum EventChain {
    /// The place of the first event that is not what it was; nil if all are.
    ///
    /// A page is up to 500 events after a place. With an end that was known before, the chain has to reach it; it may have
    /// grown since.
    package static func brokenLink(
        reaching end: (sequence: Int, hash: [UInt8])? = nil,
        _ page: (_ after: Int) async throws -> [(event: StepEvent, hash: [UInt8])]
    ) async throws -> Int? {
        var previous = StepEvent.origin
        var sequence = 0
        while true {
            let events = try await page(sequence)
            for (event, hash) in events {
                guard event.sequence == sequence + 1, event.previousHash == previous, event.hash == hash else {
                    return event.sequence
                }
                previous = hash
                sequence = event.sequence
                if let end, end.sequence == sequence, end.hash != hash { return sequence }
            }
            guard events.count < 500 else { continue }
            return sequence < end?.sequence ?? 0 ? sequence + 1 : nil
        }
    }
}

extension StepEvent {
    /// Reads a row of an audit.
    package init(_ row: PostgresRow) throws {
        self.init(
            stepID: try row.int("step_id"),
            sequence: try row.int("sequence"),
            at: try row.timestamp("at"),
            actor: try row.string("actor"),
            kind: try row.string("kind"),
            subject: try row.optionalString("subject"),
            data: try row.json("data").object ?? [:],
            previousHash: try row.bytes("previous_hash")
        )
    }
}
