// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import HTTPClient
import JSON

extension MonitorChecks {
    /// What GitHub still grants this hour: chains whose sources lie there cannot be verified without.
    ///
    /// Asking costs nothing of it. Limits are shares, since a worker without a token has 60 requests and one with a token thousands.
    func github(_ options: Options) async -> CheckResult {
        let token = configuration.file.text("github_oauth_token")
        let who = token.isEmpty ? "without a token" : "with the token"
        var request = HTTPRequest(
            url: "\(configuration.file.text("github_api_url"))/rate_limit",
            headers: [
                "Accept": "application/vnd.github+json", "User-Agent": "slipway-scriptworker/\(Release.version)",
            ],
            timeout: .seconds(10)
        )
        if !token.isEmpty { request.headers["Authorization"] = "token \(token)" }
        let response: HTTPResponse
        do {
            response = try await transport.send(request)
        } catch {
            return CheckResult("github", .unknown, "GitHub does not answer: \(error.code.name)")
        }
        switch response.status {
        case 200: break
        case 401: return CheckResult("github", .critical, "GitHub refuses the token")
        // Installations of one's own may have no limits, and then no such address.
        case 404: return CheckResult("github", .ok, "GitHub sets no limit \(who)")
        default: return CheckResult("github", .unknown, "GitHub answers \(response.status)")
        }
        guard let quota = (try? response.json())?["resources"]?["core"], let limit = quota["limit"]?.double, limit > 0,
            let remaining = quota["remaining"]?.double
        else { return CheckResult("github", .unknown, "GitHub's answer holds no quota") }
        let wait = max(0, (quota["reset"]?.double ?? 0) - Double(Glibc.time(nil)))
        let measures = [
            measure("left", remaining / limit * 100, "%", options, "20:", "5:"),
            CheckResult.Measure(label: "remaining", value: remaining, unit: "", minimum: 0),
            CheckResult.Measure(label: "limit", value: limit, unit: "", minimum: 0),
            CheckResult.Measure(label: "reset", value: wait, unit: "s", minimum: 0),
        ]
        let text = "\(Int(remaining)) of \(Int(limit)) requests left \(who), all again in \(Int(wait)) s"
        return CheckResult("github", .ok, text, measures)
    }
}
