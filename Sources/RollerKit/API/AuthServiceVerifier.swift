// SPDX-License-Identifier: MPL-2.0

import Core
import JSON
import Taskcluster
package import TaskclusterClient

extension RollerAPI {
    /// Has requests judged by the auth service of the deployment: five seconds and one repetition, then it counts as
    /// away.
    ///
    /// Nothing is remembered: the service itself keeps requests from being sent twice.
    package static func verifier(_ client: TaskclusterClient, patience: Duration = .seconds(5)) -> Verifier {
        { request in
            do {
                let verdict = try await client.call(
                    "auth",
                    "POST",
                    ["authenticate-hawk"],
                    body: request.json,
                    retry: RetryPolicy(attempts: 2, base: .milliseconds(100), maximum: .milliseconds(200)),
                    timeout: patience
                )
                return AuthVerdict(json: verdict)
            } catch let error as TaskclusterError {
                guard let status = error.status, status < 500 else { throw AuthVerdict.Unavailable() }
                // The service does not take the request for one, so nobody has signed it.
                return AuthVerdict(json: ["status": "auth-failed", "message": .string(error.message)])
            }
        }
    }
}
