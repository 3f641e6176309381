// SPDX-License-Identifier: MPL-2.0

package import JSON

/// The settings that all actions of a worker share.
package struct ActionSettings: Sendable {
    /// The methods of `reboot` where neither machine nor group names any.
    package var rebootPolicy: [RebootStep]
    /// How long a machine may take to go down.
    package var downTimeout: Duration = .seconds(60)
    /// How long a machine may take to come back.
    package var upTimeout: Duration = .seconds(300)
    /// How long a job may run before it is asked to stop.
    package var softLimit: Duration = .seconds(600)
    /// How long a reimaged machine may take to come back.
    package var reimageTimeout: Duration = .seconds(3600)
    /// Where machines that are installed anew reach `roller-api`; nil where they tell nobody.
    package var publicURL: String?
    /// The cipher suites of IPMI to try, in order.
    package var cipherSuites: [Int] = [17, 3]
    /// The file with the host keys of machines whose keys are not in the inventory.
    package var knownHosts: String?
    /// The folder of programs that controllers of kind `exec` may name; nil where there are none.
    package var pluginDirectory: String?
    /// Suffixes tried for hosts that are only named by requests.
    package var searchDomains: [String] = []
    /// Where bugs are filed; nil where there is no tracker.
    package var bugzilla: BugzillaSettings?

    /// The usual settings.
    package init(rebootPolicy: [RebootStep] = RebootStep.standard) {
        self.rebootPolicy = rebootPolicy
    }
}

/// How bugs are filed.
package struct BugzillaSettings: Sendable {
    /// The base URL, without `/rest`.
    package var url: String
    /// The key.
    package var apiKey: String
    /// The state that a closed tracking bug is set to.
    package var reopenState = "REOPENED"
    /// What a bug about an unreachable machine consists of.
    package var rebootTemplate: JSONValue = BugTemplate.reboot
    /// What the tracking bug of a machine consists of.
    package var trackerTemplate: JSONValue = BugTemplate.tracker

    /// A tracker with the usual templates.
    package init(url: String, apiKey: String) {
        self.url = url
        self.apiKey = apiKey
    }
}
