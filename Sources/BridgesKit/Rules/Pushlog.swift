// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// What a pushlog answered.
struct Pushlog: Sendable, Equatable {
    /// One push.
    struct Push: Sendable, Equatable {
        let id: Int
        let user: String
        let date: Timestamp
        /// Hashes, or objects with descriptions.
        let changesets: [JSONValue]

        /// The hashes of the changesets, in order.
        var nodes: [String] { changesets.compactMap { $0.string ?? $0["node"]?.string } }
    }

    /// An answer that is not what a pushlog of version 2 says.
    struct Problem: Error, CustomStringConvertible {
        let description: String
    }

    /// The id of the newest push; 0 for a repository without any.
    let lastPushID: Int
    /// The pushes of the answer, oldest first.
    let pushes: [Push]

    /// Reads the answer to `json-pushes?version=2`.
    init(_ answer: JSONValue) throws(Problem) {
        guard let members = answer["pushes"]?.object, let last = answer["lastpushid"] else {
            throw Problem(description: "the answer is no pushlog of version 2")
        }
        guard let lastPushID = last.isNull ? 0 : last.int, lastPushID >= 0 else {
            throw Problem(description: "lastpushid is not a number")
        }
        self.lastPushID = lastPushID
        var pushes: [Push] = []
        for (key, value) in members {
            guard let id = Int(key), id > 0, let date = value["date"]?.double,
                let changesets = value["changesets"]?.array
            else { throw Problem(description: "a push is not an object with a date and changesets") }
            pushes.append(
                Push(
                    id: id,
                    user: value["user"]?.string ?? "",
                    date: Timestamp(seconds: date),
                    changesets: changesets
                )
            )
        }
        self.pushes = pushes.sorted { $0.id < $1.id }
    }
}

/// What an answer means for a repository whose pushes up to a cursor have been announced.
enum PushlogStep: Equatable {
    /// The first look: begin at the tip.
    case begin(at: Int)
    /// Nothing happened.
    case nothing
    /// Announce these and move on.
    case announce([Pushlog.Push], cursor: Int)
    /// The newest id is smaller than the cursor, for the how manieth time in a row.
    case behind(times: Int)
    /// It stayed smaller, so the repository was made anew: report it and begin at its tip.
    case reset(to: Int)

    /// How often in a row the newest id must be smaller than the cursor: a mirror may lag, and an answer from it must not
    /// throw away the place.
    static let patience = 3
    /// The most pushes asked for at once.
    static let batch = 100

    /// Decides.
    static func decide(_ pushlog: Pushlog, cursor: Int?, behind: Int) -> PushlogStep {
        guard let cursor else { return .begin(at: pushlog.lastPushID) }
        guard pushlog.lastPushID >= cursor else {
            return behind + 1 < patience ? .behind(times: behind + 1) : .reset(to: pushlog.lastPushID)
        }
        let new = pushlog.pushes.filter { $0.id > cursor && $0.id <= min(cursor + batch, pushlog.lastPushID) }
        let next = min(cursor + batch, pushlog.lastPushID)
        return next == cursor ? .nothing : .announce(new, cursor: next)
    }
}
