// SPDX-License-Identifier: MPL-2.0

import JSON

/// The build in a task group whose coverage is to be uploaded.
enum CoverageBuild {
    /// What a group means to a trigger.
    enum Verdict: Equatable {
        case upload(repository: String, revision: String)
        case skip(String)
    }

    /// Whether a task of a group is such a build.
    static func matches(_ task: JSONValue, _ rule: CoverageRule) -> Bool {
        guard let name = task["task"]?["metadata"]?["name"]?.string else { return false }
        return rule.taskNames.contains { name.hasPrefix($0) }
    }

    /// What the first such build says.
    static func verdict(_ task: JSONValue, _ rule: CoverageRule) -> Verdict {
        let environment = task["task"]?["payload"]?["env"]
        guard let repository = environment?["GECKO_HEAD_REPOSITORY"]?.string else {
            return .skip("the build has no GECKO_HEAD_REPOSITORY")
        }
        guard rule.repositories.contains(repository) else {
            return .skip("the build is of \(repository)")
        }
        guard let revision = environment?["GECKO_HEAD_REV"]?.string else {
            return .skip("the build has no GECKO_HEAD_REV")
        }
        return .upload(repository: repository, revision: revision)
    }
}
