// SPDX-License-Identifier: MPL-2.0

import HooksKit

/// Something to watch, and the hook that it triggers.
struct Trigger: Sendable {
    /// What is watched and what counts.
    enum Source: Sendable {
        /// Commits that MozReview published to one repository.
        case mozReview(repositoryURL: String)
        /// Diffs of Phabricator.
        case phabricator
        /// Diffs of Phabricator that one of some people is to review.
        case risk(reviewers: Set<String>)
        /// Task groups with a build that measures coverage.
        case coverage(CoverageRule)
    }

    /// What tells it from other triggers; its type, unless it was given a name.
    let name: String
    let type: TriggerType
    let hook: HookName
    let source: Source

    /// Whether it is about diffs of Phabricator.
    var needsPhabricator: Bool {
        switch source {
        case .phabricator, .risk: true
        case .mozReview, .coverage: false
        }
    }
}

/// The kinds of triggers, in the words of the configuration.
enum TriggerType: String, CaseIterable, Sendable {
    case mozReview = "static-analysis-mozreview"
    case phabricator = "static-analysis-phabricator"
    case coverage = "code-coverage"
    case risk = "risk-assessment"
}

/// Which task groups have coverage to upload.
struct CoverageRule: Sendable, Equatable {
    /// The topic pattern for resolved groups.
    var routingKey = "*.*.gecko-level-3._"
    /// What the name of the build begins with.
    var taskNames = ["build-linux64-ccov", "build-win64-ccov"]
    /// The repositories that count.
    var repositories = ["https://hg.mozilla.org/mozilla-central"]
}

/// Something that was observed and may trigger a hook.
struct Sighting: Sendable, Equatable {
    /// How it was noticed.
    enum Origin: String, Sendable {
        case message, poll, webhook
    }

    /// What makes it the same however often it is observed: a diff, a task group, a commit.
    let subject: String
    let facts: Facts
    let origin: Origin
}
