// SPDX-License-Identifier: MPL-2.0

package import Core
import JSON

extension ActionSettings {
    /// Reads what actions need to know.
    ///
    /// ## Configuration keys
    /// - `REBOOT_METHODS`: the methods of a reboot, in order, where the inventory names none.
    /// - `DOWN_TIMEOUT`, `UP_TIMEOUT`: how long machines may take to go down and to come back.
    /// - `CELERY_TASK_SOFT_TIME_LIMIT`: how long a job may run before it is asked to stop.
    /// - `ROLLER_PUBLIC_URL`: where machines that are installed anew reach `roller-api`.
    /// - `REIMAGE_TIMEOUT`, `IPMI_CIPHER_SUITES`, `KNOWN_HOSTS`, `PLUGINS_DIR`, `DNS_SEARCH`.
    /// - `BUGZILLA_URL`, `BUGZILLA_API_KEY`, `BUGZILLA_REOPEN_STATE`, `BUGZILLA_REBOOT_TEMPLATE`,
    ///   `BUGZILLA_WORKER_TRACKER_TEMPLATE`.
    package init(settings: Settings) {
        self.init()
        if let methods = settings.optional("reboot.methods", "the methods of a reboot, in order") {
            rebootPolicy = RebootStep.list(methods)
            let unknown = rebootPolicy.map(\.method).filter { ActionRegistry.standard.method($0) == nil }
            if !unknown.isEmpty {
                settings.fail("reboot.methods", "names unknown methods: \(unknown.joined(separator: ", "))")
            }
        }
        let hour = Duration.seconds(7200)
        downTimeout = settings.duration(
            "down.timeout",
            default: downTimeout,
            in: .seconds(1)...hour,
            "how long a machine may take to go down"
        )
        upTimeout = settings.duration(
            "up.timeout",
            default: upTimeout,
            in: .seconds(1)...hour,
            "how long a machine may take to come back"
        )
        softLimit = settings.duration(
            "celery.task.soft.time.limit",
            default: softLimit,
            in: .seconds(1)...(.seconds(86_400)),
            "how long a job may run before it is asked to stop"
        )
        reimageTimeout = settings.duration(
            "reimage.timeout",
            default: reimageTimeout,
            in: .seconds(1)...(.seconds(86_400)),
            "how long a machine may take to be installed anew"
        )
        publicURL = settings.url("roller.public.url", "where machines that are installed anew reach roller-api")
        let suites = settings.string("ipmi.cipher.suites", default: "17,3", "the cipher suites of IPMI, in order")
        let numbers = suites.split(separator: ",").map { Int($0.filter { $0 != " " }) }
        cipherSuites = numbers.compactMap(\.self)
        if cipherSuites.isEmpty || cipherSuites.count < numbers.count {
            settings.fail("ipmi.cipher.suites", "must be numbers, separated by commas")
        }
        knownHosts = settings.path("known.hosts", "the file with the host keys of machines")
        pluginDirectory = settings.path("plugins.dir", "the folder of programs that controllers may name")
        if pluginDirectory?.hasPrefix("/") == false { settings.fail("plugins.dir", "must be an absolute path") }
        searchDomains = Self.list(settings.optional("dns.search", "domains in which bare names are looked up"))
        readBugzilla(settings)
    }

    private mutating func readBugzilla(_ settings: Settings) {
        let url = settings.url("bugzilla.url", "where bugs are filed, without /rest")
        let key = settings.optional("bugzilla.api.key", secret: true, "the key to file bugs with")
        let state = settings.optional("bugzilla.reopen.state", "the state that a closed tracking bug is set to")
        let templates = [
            settings.optional("bugzilla.reboot.template", "a bug about a machine, as JSON"),
            settings.optional("bugzilla.worker.tracker.template", "the tracking bug of a machine, as JSON"),
        ]
        guard let url else { return }
        guard let key else {
            settings.fail("bugzilla.api.key", "is needed with BUGZILLA_URL")
            return
        }
        var bugzilla = BugzillaSettings(url: url, apiKey: key)
        if let state { bugzilla.reopenState = state }
        for (index, text) in templates.enumerated() {
            guard let text else { continue }
            guard let template = try? JSONValue(parsing: text), template.object != nil else {
                settings.fail(
                    index == 0 ? "bugzilla.reboot.template" : "bugzilla.worker.tracker.template",
                    "is not a JSON object"
                )
                continue
            }
            if index == 0 { bugzilla.rebootTemplate = template } else { bugzilla.trackerTemplate = template }
        }
        self.bugzilla = bugzilla
    }

    private static func list(_ text: String?) -> [String] {
        (text ?? "").split(separator: ",").map { $0.filter { $0 != " " } }.filter { !$0.isEmpty }
    }
}
