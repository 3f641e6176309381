// SPDX-License-Identifier: MPL-2.0

package import Postgres

/// Events that carry the digests of those before them.
package enum EventChain {
    /// The place of the first event that is not what it was, and the end of the chain up to there; a page is up to 500
    /// events after a place.
    package static func brokenLink(
        _ page: (_ after: Int) async throws -> [(event: StepEvent, hash: [UInt8])]
    ) async throws -> (broken: Int?, sequence: Int, hash: [UInt8]) {
        var previous = StepEvent.origin
        var sequence = 0
        while true {
            let events = try await page(sequence)
            for (event, hash) in events {
                guard event.sequence == sequence + 1, event.previousHash == previous, event.hash == hash else {
                    return (event.sequence, sequence, previous)
                }
                previous = hash
                sequence = event.sequence
            }
            if events.count < 500 { return (nil, sequence, previous) }
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
