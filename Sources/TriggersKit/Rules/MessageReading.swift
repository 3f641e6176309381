// SPDX-License-Identifier: MPL-2.0

import JSON
import Taskcluster

/// What messages of the bus say to triggers.
enum MessageReading {
    /// A message that does not say what messages of its kind say.
    struct Problem: Error, Equatable, CustomStringConvertible {
        let description: String
    }

    /// What a trigger is to do about a message; nothing, if the message is about something else.
    static func sightings(_ body: [UInt8], for source: Trigger.Source) throws(Problem) -> [Sighting] {
        let message: JSONValue
        do { message = try JSONValue(parsing: body) } catch {
            throw Problem(description: "the message is not JSON: \(error.message)")
        }
        switch source {
        case .mozReview(let url): return try commits(message, of: url)
        case .coverage: return [try group(message)]
        case .phabricator, .risk: throw Problem(description: "this trigger reads no messages")
        }
    }

    private static func group(_ message: JSONValue) throws(Problem) -> Sighting {
        guard let id = message["taskGroupId"]?.string, Slugid.isValid(id) else {
            throw Problem(description: "the message has no taskGroupId")
        }
        return Sighting(subject: id, facts: .group(id), origin: .message)
    }

    private static func commits(_ message: JSONValue, of wanted: String) throws(Problem) -> [Sighting] {
        guard let payload = message["payload"], payload.object != nil else {
            throw Problem(description: "the message has no payload")
        }
        guard let url = payload["repository_url"]?.string else {
            throw Problem(description: "the payload has no repository_url")
        }
        guard url == wanted else { return [] }
        guard let commits = payload["commits"]?.array, !commits.isEmpty else {
            throw Problem(description: "the payload has no commits")
        }
        var sightings: [Sighting] = []
        for (place, commit) in commits.enumerated() {
            guard let revision = commit["rev"]?.string, isHash(revision) else {
                throw Problem(description: "commit \(place) has no rev")
            }
            guard let review = commit["review_request_id"]?.int, let diffset = commit["diffset_revision"]?.int else {
                throw Problem(description: "commit \(place) has no review_request_id or diffset_revision")
            }
            let facts = Facts.commit(revision: revision, review: review, diffset: diffset)
            sightings.append(Sighting(subject: "\(revision)/\(review)/\(diffset)", facts: facts, origin: .message))
        }
        return sightings
    }

    private static func isHash(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "f"),
                    UInt8(ascii: "A")...UInt8(ascii: "F"):
                    true
                default: false
                }
            }
    }
}
