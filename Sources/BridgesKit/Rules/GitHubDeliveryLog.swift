// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// GitHub's own list of what it sent to an address.
enum GitHubDeliveryLog {
    /// One attempt at a delivery.
    struct Attempt: Sendable, Equatable {
        /// The number of the attempt, by which GitHub is asked to make another one.
        let number: Int
        /// The id of the delivery, which its attempts share.
        let deliveryID: String
        let event: String
        let moment: Timestamp
    }

    /// A list that GitHub does not make.
    struct Problem: Error, CustomStringConvertible {
        let description: String
    }

    /// How often a delivery is asked for before it is given up.
    static let mostRequests = 3
    /// How long a delivery may be on its way.
    static let grace = Duration.seconds(60)

    /// Reads a page.
    static func attempts(_ page: JSONValue) throws(Problem) -> [Attempt] {
        guard let entries = page.array else { throw Problem(description: "the answer is no list of deliveries") }
        var attempts: [Attempt] = []
        for entry in entries {
            guard let number = entry["id"]?.int, let id = entry["guid"]?.string, let event = entry["event"]?.string,
                let moment = entry["delivered_at"]?.string.flatMap({ Timestamp($0) })
            else { throw Problem(description: "a delivery lacks id, guid, event or delivered_at") }
            attempts.append(Attempt(number: number, deliveryID: id, event: event, moment: moment))
        }
        return attempts
    }

    /// The deliveries that should have arrived: everything but pings, from an instant on and not still on its way.
    static func expected(_ attempts: [Attempt], since: Timestamp, now: Timestamp) -> Set<String> {
        let late = attempts.filter { $0.event != "ping" && $0.moment >= since }
        let underway = attempts.filter { $0.moment > now - grace }.map(\.deliveryID)
        return Set(late.map(\.deliveryID)).subtracting(underway)
    }

    /// What to ask for again, the newest attempt of each missing delivery, oldest delivery first, and what is given up
    /// because it was asked for too often already.
    static func decide(
        _ attempts: [Attempt],
        missing: Set<String>,
        asked: [String: Int]
    ) -> (again: [Attempt], givenUp: [String]) {
        let groups = Dictionary(grouping: attempts.filter { missing.contains($0.deliveryID) }, by: \.deliveryID)
        let newest = groups.values.compactMap { group in group.max { $0.moment < $1.moment } }
        let split = newest.sorted { ($0.moment, $0.number) < ($1.moment, $1.number) }
        return (
            split.filter { asked[$0.deliveryID, default: 0] < mostRequests },
            split.map(\.deliveryID).filter { asked[$0, default: 0] == mostRequests }
        )
    }

    /// The address of the next page in a `Link` header.
    static func nextPage(_ link: String?) -> String? {
        for piece in (link ?? "").split(separator: ",") {
            let parts = piece.split(separator: ";").map { $0.filter { $0 != " " } }
            guard parts.dropFirst().contains(#"rel="next""#), let target = parts.first, target.hasPrefix("<"),
                target.hasSuffix(">")
            else { continue }
            return String(target.dropFirst().dropLast())
        }
        return nil
    }
}
