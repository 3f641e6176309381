// SPDX-License-Identifier: MPL-2.0

/// What Harbormaster says when a build of a diff begins.
enum BuildRequest {
    /// Why a request is refused.
    struct Problem: Error, Equatable, CustomStringConvertible {
        let description: String
    }

    /// Reads the options of a request.
    static func diff(_ option: (String) -> String?) throws(Problem) -> Facts.Diff {
        let id = try number("diff", option)
        let repository = try phid("repo", "PHID-REPO-", option)
        let revision = try number("revision", option)
        let target = try phid("target", "PHID-HMBT-", option)
        return Facts.Diff(id: id, revisionID: revision, repositoryPHID: repository, targetPHID: target)
    }

    private static func number(_ name: String, _ option: (String) -> String?) throws(Problem) -> Int {
        guard let text = option(name), text.utf8.count <= 15, text.utf8.allSatisfy({ (48...57).contains($0) }),
            let number = Int(text), number > 0
        else { throw Problem(description: "\(name) must be a number") }
        return number
    }

    private static func phid(
        _ name: String,
        _ prefix: String,
        _ option: (String) -> String?
    ) throws(Problem) -> String {
        guard let text = option(name), text.hasPrefix(prefix), text.utf8.count <= 64,
            text.utf8.count > prefix.utf8.count, text.utf8.allSatisfy({ (33...126).contains($0) })
        else { throw Problem(description: "\(name) must begin with \(prefix)") }
        return text
    }
}
