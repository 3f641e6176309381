// SPDX-License-Identifier: MPL-2.0

import JSON

/// What triggers ask Phabricator.
struct Phabricator: Sendable {
    /// A diff as its search tells it.
    struct Entry: Sendable, Equatable {
        let id: Int
        let isDiff: Bool
        let phid: String
        let revisionPHID: String?

        init?(_ json: JSONValue) {
            guard let id = json["id"]?.int, let phid = json["phid"]?.string else { return nil }
            self.id = id
            self.phid = phid
            isDiff = json["type"]?.string == "DIFF"
            revisionPHID = json["fields"]?["revisionPHID"]?.string
        }
    }

    let conduit: Conduit
    /// How many diffs are asked for at a time.
    static let page = 20

    /// The id of the newest diff there is; zero if there is none.
    func newestDiff() async throws(Conduit.Failure) -> Int {
        let found = try await diffs(["order": "newest", "limit": 1])
        return found.entries.first?.id ?? 0
    }

    /// The diffs after one, oldest first, and whether there are more.
    func diffs(after id: Int) async throws(Conduit.Failure) -> (entries: [Entry], isLast: Bool) {
        try await diffs(["order": "oldest", "limit": JSONValue(Self.page), "after": .string(String(id))])
    }

    /// One diff; nil if it does not exist or may not be seen.
    func diff(_ id: Int) async throws(Conduit.Failure) -> Entry? {
        try await diffs(["constraints": ["ids": [JSONValue(id)]], "limit": 1]).entries.first { $0.id == id }
    }

    private func diffs(_ parameters: JSONObject) async throws(Conduit.Failure) -> (entries: [Entry], isLast: Bool) {
        let (data, after) = try await conduit.search("differential.diff.search", parameters)
        var entries: [Entry] = []
        for item in data {
            guard let entry = Entry(item) else {
                throw Conduit.Failure(description: "differential.diff.search: an entry has no id or phid")
            }
            entries.append(entry)
        }
        return (entries, after == nil)
    }

    /// The people who are to review a revision, by PHID; nil if the revision may not be seen.
    func reviewers(ofRevision phid: String) async throws(Conduit.Failure) -> [String]? {
        let (data, _) = try await conduit.search(
            "differential.revision.search",
            ["constraints": ["phids": [.string(phid)]], "attachments": ["reviewers": true], "limit": 1]
        )
        guard let revision = data.first(where: { $0["phid"]?.string == phid }) else { return nil }
        let list = revision["attachments"]?["reviewers"]?["reviewers"]?.array ?? []
        return list.compactMap { $0["reviewerPHID"]?.string }
    }

    /// The names of people.
    func names(ofUsers phids: [String]) async throws(Conduit.Failure) -> [String] {
        let users = phids.filter { $0.hasPrefix("PHID-USER-") }
        guard !users.isEmpty else { return [] }
        let (data, _) = try await conduit.search(
            "user.search",
            ["constraints": ["phids": .array(users.map { .string($0) })]]
        )
        return data.compactMap { $0["fields"]?["username"]?.string }
    }
}
