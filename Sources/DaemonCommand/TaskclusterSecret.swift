// SPDX-License-Identifier: MPL-2.0

import Core
import HTTPClient
import JSON
import Taskcluster
import TaskclusterClient

/// Settings that are kept as a secret in Taskcluster.
///
/// The secret is a document of parts, `{"common": {…}, "<project>": {…}}`, whose members are named like variables; what the
/// project's part says counts before the common part, and what the process is told itself before both.
///
/// ## Configuration keys
/// - `TASKCLUSTER_SECRET`: the name of the secret; without it nothing is asked.
/// - `TASKCLUSTER_SECRET_PROJECT`: the part that belongs to this daemon; default its name.
/// - `TASKCLUSTER_ROOT_URL`, `TASKCLUSTER_CLIENT_ID`, `TASKCLUSTER_ACCESS_TOKEN`, `TASKCLUSTER_CERTIFICATE`: where it is, and
///   who may read it; these cannot come from the secret.
struct TaskclusterSecret: Sendable {
    /// How often a service is asked that does not answer, within about twenty seconds if it refuses at once.
    var retry = RetryPolicy(attempts: 8, base: .milliseconds(250), maximum: .seconds(5))

    /// Adds what the secret says to the settings of a daemon; throws ``ConfigurationError`` if it cannot be read.
    func add(to settings: Settings, of daemon: String) async throws {
        guard let name = settings.optional("taskcluster.secret", "the secret with more settings") else { return }
        let project = settings.string(
            "taskcluster.secret.project",
            default: daemon,
            "the part of the secret that is for this daemon"
        )
        let rootURL = settings.rootURL("taskcluster.root.url", "the deployment that keeps the secret")
        let client = settings.required("taskcluster.client.id", "the client that reads TASKCLUSTER_SECRET")
        let token = settings.required("taskcluster.access.token", secret: true, "its access token")
        let certificate = settings.optional("taskcluster.certificate", secret: true, "its certificate, if temporary")
        try settings.check()
        let credentials = Hawk.Credentials(clientID: client, accessToken: token, certificate: certificate)
        do {
            settings.add(secrets: try await values(name, project, rootURL, credentials))
        } catch {
            settings.fail("taskcluster.secret", error.text)
            try settings.check()
        }
    }

    /// Why a secret cannot be used.
    struct Unusable: Error {
        let text: String
    }

    private func values(
        _ name: String,
        _ project: String,
        _ rootURL: String,
        _ credentials: Hawk.Credentials
    ) async throws(Unusable) -> [String: String] {
        let transport = CurlTransport()
        defer { transport.shutdown() }
        let client = TaskclusterClient(
            rootURL: rootURL,
            credentials: { credentials },
            transport: transport,
            retry: retry
        )
        let answer: JSONValue
        do {
            answer = try await client.call("secrets", "GET", ["secret", name], timeout: .seconds(10))
        } catch {
            throw Unusable(text: Self.reason(error, name, credentials.clientID))
        }
        return try Self.values(answer["secret"], name, project)
    }

    /// The values of a secret's document, by the names of variables.
    static func values(_ secret: JSONValue?, _ name: String, _ project: String) throws(Unusable) -> [String: String] {
        guard let document = secret?.object else {
            throw Unusable(text: "cannot be used: \(name) is not a document of settings")
        }
        var values: [String: String] = [:]
        var isEmpty = true
        for part in ["common", project] {
            guard let content = document[part] else { continue }
            guard let members = content.object else {
                throw Unusable(text: "cannot be used: the part \(part) of \(name) is not an object")
            }
            isEmpty = false
            // What is no name of a variable is for somebody else.
            for (key, value) in members where isVariable(key) { values[key] = text(value) }
        }
        guard !isEmpty else {
            throw Unusable(text: "cannot be used: \(name) has neither a part common nor a part \(project)")
        }
        return values
    }

    private static func isVariable(_ name: String) -> Bool {
        guard let first = name.utf8.first, (65...90).contains(first) || first == 95 else { return false }
        return name.utf8.allSatisfy { (65...90).contains($0) || (48...57).contains($0) || $0 == 95 }
    }

    /// A value as a variable would have it; nil for none.
    private static func text(_ value: JSONValue) -> String? {
        switch value {
        case .null: nil
        case .string(let text): text
        default: value.text()
        }
    }

    private static func reason(_ error: TaskclusterError, _ name: String, _ client: String) -> String {
        switch error.status {
        case 404, 410: "cannot be read: there is no secret \(name)"
        case 401: "cannot be read: the secrets service does not accept the credentials of \(client)"
        case 403: "cannot be read: \(client) needs the scope secrets:get:\(name)"
        case let status?: "cannot be read: the secrets service answered \(status) \(error.code)"
        case nil: "cannot be read: the secrets service gives no answer: \(error.code)"
        }
    }
}
