// SPDX-License-Identifier: MPL-2.0

public import HTTPClient
import JSON
import StepKit
import YAMLReader

/// Says of which kind extensions are.
public protocol ExtensionManifests: Sendable {
    /// The kind of an extension by the manifests of a revision; nil if those do not know it.
    func kind(of extension: String, at revision: String) async throws -> String?
}

/// The manifests of extensions as a host of repositories serves them: one file for each extension.
public struct RemoteManifests: ExtensionManifests {
    private let url: String
    private let transport: any HTTPTransport

    /// Reads `url/revision/manifests/name.yml`.
    public init(url: String, transport: any HTTPTransport) {
        self.url = url
        self.transport = transport
    }

    /// The kind of an extension; extensions of the system are each a kind of their own.
    public func kind(of extension: String, at revision: String) async throws -> String? {
        // Both come from whoever asks, and are parts of an address.
        for word in [`extension`, revision] where StepUID.problem(with: word) != nil {
            throw StepProblem.invalid("\(word) names no extension and no revision")
        }
        let response: HTTPResponse
        do {
            var request = HTTPRequest(url: "\(url)/\(revision)/manifests/\(`extension`).yml", timeout: .seconds(10))
            request.redirects = 3
            response = try await transport.send(request)
        } catch {
            throw StepProblem(503, "manifests_unavailable", "The manifests of extensions cannot be had")
        }
        switch response.status {
        case 200: break
        case 404: return nil
        default: throw StepProblem(503, "manifests_unavailable", "The manifests of extensions: \(response.status)")
        }
        let manifest: JSONValue
        do {
            manifest = try YAML.value(of: String(decoding: response.body, as: UTF8.self))
        } catch {
            throw StepProblem.invalid("The manifest of \(`extension`) cannot be read", code: "bad_manifest")
        }
        guard manifest["active"]?.bool != false, let type = manifest["addon-type"]?.string else { return nil }
        return type == "system" ? "system_\(`extension`)" : type
    }
}
