// SPDX-License-Identifier: MPL-2.0

import JSON

/// What is known of a sighting before anybody is asked.
enum Facts: Sendable, Equatable {
    /// A commit under review.
    case commit(revision: String, review: Int, diffset: Int)
    /// A diff; the rest may have to be asked for.
    case diff(Diff)
    /// A task group that was resolved.
    case group(String)

    /// A diff of Phabricator.
    struct Diff: Sendable, Equatable {
        var id: Int
        var phid: String?
        var revisionPHID: String?
        /// What a webhook says besides.
        var revisionID: Int?
        var repositoryPHID: String?
        var targetPHID: String?
    }

    /// What is stored.
    var json: JSONValue {
        switch self {
        case .commit(let revision, let review, let diffset):
            return ["revision": .string(revision), "review": JSONValue(review), "diffset": JSONValue(diffset)]
        case .group(let id):
            return ["taskGroupId": .string(id)]
        case .diff(let diff):
            var json: JSONObject = ["diff": JSONValue(diff.id)]
            if let phid = diff.phid { json["phid"] = .string(phid) }
            if let phid = diff.revisionPHID { json["revisionPHID"] = .string(phid) }
            if let id = diff.revisionID { json["revision"] = JSONValue(id) }
            if let phid = diff.repositoryPHID { json["repository"] = .string(phid) }
            if let phid = diff.targetPHID { json["target"] = .string(phid) }
            return .object(json)
        }
    }

    /// Reads what was stored; nil if that says nothing of this kind.
    init?(_ json: JSONValue) {
        if let group = json["taskGroupId"]?.string {
            self = .group(group)
        } else if let id = json["diff"]?.int {
            self = .diff(
                Diff(
                    id: id,
                    phid: json["phid"]?.string,
                    revisionPHID: json["revisionPHID"]?.string,
                    revisionID: json["revision"]?.int,
                    repositoryPHID: json["repository"]?.string,
                    targetPHID: json["target"]?.string
                )
            )
        } else if let revision = json["revision"]?.string, let review = json["review"]?.int,
            let diffset = json["diffset"]?.int
        {
            self = .commit(revision: revision, review: review, diffset: diffset)
        } else {
            return nil
        }
    }
}
