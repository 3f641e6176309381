// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON
import Synchronization
import Taskcluster
import WorkerKit
import YAMLReader

/// The worker's own credentials and where they came from, so that new ones are noticed without a restart.
final class CredentialSource: Sendable {
    private struct State {
        var credentials: Hawk.Credentials
        var changed: Int
    }

    private let path: String?
    private let state: Mutex<State>

    private init(_ credentials: Hawk.Credentials, path: String?) {
        self.path = path
        state = Mutex(State(credentials: credentials, changed: path.map(Self.changeTime) ?? 0))
    }

    /// Looks in the configuration, then `./secrets.json`, then `.scriptworker` in the home directory, then the environment.
    static func find(_ document: JSONValue, path: String, environment: [String: String]) -> CredentialSource? {
        if let credentials = document["credentials"].flatMap({ Hawk.Credentials(claim: $0) }) {
            return CredentialSource(credentials, path: path)
        }
        for path in ["secrets.json", "\(environment["HOME"] ?? "/etc")/.scriptworker"] {
            if let credentials = read(path) { return CredentialSource(credentials, path: path) }
        }
        guard let clientID = environment["TASKCLUSTER_CLIENT_ID"],
            let accessToken = environment["TASKCLUSTER_ACCESS_TOKEN"]
        else { return nil }
        let certificate = environment["TASKCLUSTER_CERTIFICATE"]
        return CredentialSource(
            Hawk.Credentials(clientID: clientID, accessToken: accessToken, certificate: certificate),
            path: nil
        )
    }

    /// The newest credentials known.
    var current: Hawk.Credentials { state.withLock { $0.credentials } }

    /// Reads the file again if it has changed since.
    func refresh() {
        guard let path else { return }
        let changed = Self.changeTime(path)
        guard state.withLock({ $0.changed }) != changed, let credentials = Self.read(path) else { return }
        state.withLock { $0 = State(credentials: credentials, changed: changed) }
    }

    private static func read(_ path: String) -> Hawk.Credentials? {
        guard let text = try? FileText.read(path), let document = try? YAML.value(of: text) else { return nil }
        return document["credentials"].flatMap { Hawk.Credentials(claim: $0) }
    }

    private static func changeTime(_ path: String) -> Int {
        var info = stat()
        return stat(path, &info) == 0 ? info.st_mtim.tv_sec * 1_000_000_000 + info.st_mtim.tv_nsec : 0
    }
}
