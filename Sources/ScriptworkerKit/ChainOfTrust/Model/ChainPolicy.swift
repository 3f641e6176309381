// SPDX-License-Identifier: MPL-2.0

import Crypto
import Expressions
import JSON
import Taskcluster

/// Everything an organisation declares about which tasks it trusts.
struct ChainPolicy: Sendable {
    /// A public key and its text, which may be shown.
    struct Key: Sendable {
        let text: String
        let key: Curve25519.Signing.PublicKey

        init?(_ text: String) {
            let plain = text.split(whereSeparator: \.isWhitespace).joined()
            guard let bytes = Base64.decoded(plain), bytes.count == 32,
                let key = try? Curve25519.Signing.PublicKey(rawRepresentation: bytes)
            else { return nil }
            self.text = plain
            self.key = key
        }
    }

    enum SourceKind: String, Sendable, Hashable { case hg, github }

    /// Where files of a repository can be fetched other than from where the repository says.
    struct FileLocation: Sendable {
        let match: RegularExpression
        /// With `{repo}`, `{path}` and `{rev}`.
        let url: String
    }

    var product = ""
    var sourceKinds: [SourceKind] = []
    var decisionPools: Set<String> = []
    var imagePools: Set<String> = []
    var sourceRules: [URLRule] = []
    var gitMirrors: [String: String] = [:]
    var tasksFor: Set<String> = []
    var officialOwners: Set<String> = []
    var restrictedScopes: [String: String] = [:]
    var restrictedTrees: [String: Set<String>] = [:]
    /// Nil when every type may use a prebuilt image.
    var prebuiltImageTypes: Set<String>?
    var environmentPrefix = ""
    var alternateEnvironmentPrefix: String?
    var keys: [String: [Key]] = [:]
    var hashAlgorithms: Set<String> = []
    var artifactRules: [URLRule] = []
    var scriptworkerProvisioners: Set<String> = []
    var longestChain = 20
    var checksSignatures = false
    var isStrict = true
    var kinds = TaskKind.standard
    var fileLocations: [FileLocation] = []
    var templatePath = ".taskcluster.yml"
    var pushlogURL = ""
    var projectsURL = ""
    var githubURL = ""
    var githubToken = ""
    var githubApplication = ""
}

/// The type of a task of a chain, as its referrer calls it.
struct TaskKind: Sendable, Hashable {
    enum Checks: String, Sendable, Hashable {
        case scriptworker, build, parent
        case dockerImage = "docker-image"
    }

    let name: String
    let checks: Checks

    static let standard: [String: TaskKind] = {
        var kinds: [String: TaskKind] = [:]
        for name in ["scriptworker", "balrog", "beetmover", "bouncer", "pushapk", "shipit", "signing"] {
            kinds[name] = TaskKind(name: name, checks: .scriptworker)
        }
        for name in ["build", "l10n", "repackage", "partials"] { kinds[name] = TaskKind(name: name, checks: .build) }
        for name in ["decision", "action"] { kinds[name] = TaskKind(name: name, checks: .parent) }
        kinds["docker-image"] = TaskKind(name: "docker-image", checks: .dockerImage)
        return kinds
    }()
}
