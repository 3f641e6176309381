// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON

/// How releases that come by the first version's form are begun: what is checked, and the task that plans the others.
struct RunnerRules: Sendable {
    /// What a submitted release is checked for.
    enum Check: String, Sendable, CaseIterable {
        case longRevision = "long_revision"
        case locales = "l10n_changesets"
        case partials = "partial_updates"
        case branches = "check_allowed_branches"
        case displayVersion = "display_version"
    }

    /// The task, in JSON-e.
    let task: JSONValue
    let checks: [Check]
    /// Patterns of branches that releases may be made of; all, if there are none.
    let branches: [String]

    /// What is wrong with a submission, by its own fields; what only the source knows is not checked here.
    func problem(with submission: Submission) -> String? {
        for check in checks {
            if let problem = problem(submission, check) { return "\(check.rawValue): \(problem)" }
        }
        return nil
    }

    private func problem(_ submission: Submission, _ check: Check) -> String? {
        switch check {
        case .longRevision:
            let revision = submission.text("mozillaRevision")
            let isLong = revision.utf8.count == 40 && revision.allSatisfy { $0.isHexDigit }
            return isLong ? nil : "the revision \(revision) has not 40 digits"
        case .locales:
            return locales(submission.text("l10nChangesets"))
        case .partials:
            return partials(submission)
        case .branches:
            let branch = submission.text("branch")
            guard !branches.isEmpty, !branches.contains(where: { fnmatch($0, branch, 0) == 0 }) else { return nil }
            return "releases are not made of \(branch)"
        case .displayVersion:
            return nil
        }
    }

    /// A locale and its revision on each line, or a JSON object.
    private func locales(_ text: String) -> String? {
        guard !text.allSatisfy(\.isWhitespace) else { return "there are none" }
        if let json = try? JSONValue(parsing: text) { return json.object == nil ? "they are no object" : nil }
        let bad = text.split(whereSeparator: \.isNewline).first { line in
            !line.allSatisfy(\.isWhitespace) && line.split(whereSeparator: \.isWhitespace).count != 2
        }
        return bad.map { "the line \($0) is not a locale and a revision" }
    }

    /// Versions with their build, as `59.0b3build1`; a candidate updates from betas and from what was released.
    private func partials(_ submission: Submission) -> String? {
        var versions: [ReleaseVersion] = []
        for word in submission.partials {
            guard let partial = Partial(word) else { return "\(word) is not a version and a build" }
            versions.append(partial.version)
        }
        guard let own = ReleaseVersion(submission.text("version")), own.isFirstOfItsKind, !versions.isEmpty else {
            return nil
        }
        let betas = versions.count { $0.stage == .beta }
        guard betas > 0, betas < versions.count else {
            return "a candidate updates from at least one beta and one release"
        }
        return nil
    }
}

/// An earlier release that a release updates from.
struct Partial: Sendable {
    let version: ReleaseVersion
    let build: Int

    /// Reads a version with its build, such as `59.0b3build1`.
    init?(_ text: String) {
        guard let range = text.firstRange(of: "build"), let build = Int(text[range.upperBound...]), build > 0,
            let version = ReleaseVersion(String(text[..<range.lowerBound]))
        else { return nil }
        self.version = version
        self.build = build
    }
}

extension Submission {
    /// The words for what it updates from.
    var partials: [String] {
        text("partials").split { $0 == "," || $0.isWhitespace }.map(String.init)
    }

    /// A field as text; empty if it is absent.
    func text(_ name: String) -> String {
        fields[name].map { $0.string ?? $0.text() } ?? ""
    }
}
