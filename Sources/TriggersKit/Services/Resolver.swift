// SPDX-License-Identifier: MPL-2.0

import HTTPClient
import JSON
import TaskclusterClient

/// Finds out what a sighting means for its trigger.
struct Resolver: Sendable {
    /// What is to be done.
    enum Verdict: Sendable, Equatable {
        /// Trigger the hook with this.
        case fire(JSONValue)
        /// Nothing, for this reason.
        case skip(String)
        /// It cannot be seen, and may be seen soon.
        case lookAgain(String)
    }

    /// Something that was stored by another version, perhaps, and says nothing to this one.
    struct Unreadable: Error, CustomStringConvertible {
        let description = "what was observed cannot be read"
    }

    let client: TaskclusterClient
    let phabricator: Phabricator?

    /// Looks at what a run is about; throws what may pass.
    func verdict(_ run: Run, of trigger: Trigger) async throws -> Verdict {
        switch (trigger.source, Facts(run.facts)) {
        case (.mozReview, .commit(let revision, let review, let diffset)):
            return .fire([
                "ANALYSIS_SOURCE": "mozreview", "ANALYSIS_ID": .string(revision),
                "MOZREVIEW_REVISION": .string(String(review)), "MOZREVIEW_DIFFSET": .string(String(diffset)),
            ])
        case (.coverage(let rule), .group(let id)):
            return try await coverage(id, rule)
        case (.phabricator, .diff(let diff)):
            return try await whenVisible(diff) { phid, _ in
                .fire(["ANALYSIS_SOURCE": "phabricator", "ANALYSIS_ID": .string(phid)])
            }
        case (.risk(let wanted), .diff(let diff)):
            return try await whenVisible(diff) { _, reviewers in
                try await risk(diff.id, reviewers, wanted)
            }
        default:
            throw Unreadable()
        }
    }

    // MARK: - Coverage

    private func coverage(_ id: String, _ rule: CoverageRule) async throws -> Verdict {
        var token: String?
        repeat {
            let page: JSONValue
            do throws(TaskclusterError) {
                page = try await client.queue.listTaskGroup(id, continuation: token)
            } catch {
                guard error.status == 404 else { throw error }
                return .skip("the queue does not know the group any more")
            }
            if let build = page["tasks"]?.array?.first(where: { CoverageBuild.matches($0, rule) }) {
                switch CoverageBuild.verdict(build, rule) {
                case .skip(let reason): return .skip(reason)
                case .upload(let repository, let revision):
                    return .fire(["REVISION": .string(revision), "REPOSITORY": .string(repository)])
                }
            }
            token = page["continuationToken"]?.string
        } while token != nil
        return .skip("the group has no build that measures coverage")
    }

    // MARK: - Diffs

    /// Goes on with a diff and its reviewers if both the diff and its revision can be seen.
    private func whenVisible(
        _ diff: Facts.Diff,
        _ then: (_ phid: String, _ reviewers: [String]) async throws -> Verdict
    ) async throws -> Verdict {
        guard let phabricator else { throw Unreadable() }
        var (phid, revision) = (diff.phid, diff.revisionPHID)
        if phid == nil || revision == nil {
            guard let entry = try await phabricator.diff(diff.id) else { return .lookAgain("the diff is not visible") }
            guard entry.isDiff else { return .skip("it is no diff") }
            (phid, revision) = (entry.phid, entry.revisionPHID)
        }
        guard let phid, let revision else { return .lookAgain("the diff belongs to no revision yet") }
        guard let reviewers = try await phabricator.reviewers(ofRevision: revision) else {
            return .lookAgain("the revision is not visible")
        }
        return try await then(phid, reviewers)
    }

    private func risk(_ diff: Int, _ reviewers: [String], _ wanted: Set<String>) async throws -> Verdict {
        guard let phabricator else { throw Unreadable() }
        var known = Set(reviewers)
        if known.isDisjoint(with: wanted) { known = Set(try await phabricator.names(ofUsers: reviewers)) }
        guard !known.isDisjoint(with: wanted) else { return .skip("nobody of the list reviews it") }
        return .fire(["DIFF_ID": JSONValue(diff)])
    }
}
