// SPDX-License-Identifier: MPL-2.0

import JSON
import PipelineKit

/// What the release of an extension is of.
struct Extension: Sendable {
    /// The extension's name in the manifests.
    let name: String
    /// The revision of the extension's own repository.
    let revision: String
    let version: String
    /// The kind, which says who may do what: `privileged`, `system_newtab`.
    let type: String

    init(name: String, revision: String, version: String, type: String) {
        self.name = name
        self.revision = revision
        self.version = version
        self.type = type
    }

    /// Reads what was stored.
    init?(_ json: JSONValue) {
        guard let name = json["name"]?.string, let revision = json["revision"]?.string,
            let version = json["version"]?.string, let type = json["type"]?.string
        else { return nil }
        self.init(name: name, revision: revision, version: version, type: type)
    }

    var json: JSONValue {
        [
            "name": .string(name), "revision": .string(revision), "version": .string(version), "type": .string(type),
        ]
    }

    /// The phase whose tasks sign the package.
    static let signingPhase = "promote"

    /// The product that stands for extensions of a kind, where permissions and signatures are concerned.
    static func product(_ type: String) -> String { "xpi/\(type)" }
}

extension Release {
    /// The release of an extension as its clients know it, with the addresses of packages by the tasks they come from.
    func json(
        _ extension: Extension,
        _ steps: [PipelineDoor.StepView],
        _ packages: [String: String]
    ) -> JSONObject {
        let phases = phases.map { phase -> JSONValue in
            var json = json(phase, steps)
            if let task = json["actionTaskId"]?.string, let package = packages[task] {
                json["xpiUrl"] = .string(package)
            }
            return .object(json)
        }
        return [
            "name": .string(name), "revision": .string(revision), "xpi_name": .string(`extension`.name),
            "xpi_revision": .string(`extension`.revision), "xpi_version": .string(`extension`.version),
            "build_number": JSONValue(buildNumber), "status": .string(status.rawValue),
            "created": .string(created.iso8601), "completed": .string(completed?.iso8601 ?? ""),
            "phases": .array(phases),
        ]
    }
}
