// SPDX-License-Identifier: MPL-2.0

package import APIServer
package import Core
package import Expressions

/// What the API of roller lets in, and how it answers.
///
/// ## Configuration keys
/// - `ALLOWED_HOSTS`: host names that requests may be for, with commas; `.example.com` allows subdomains, `*` all; default `*`.
/// - `CORS_ORIGIN`: sites whose pages may call, with commas; default `*`.
/// - `TRUSTED_PROXIES`: addresses or networks whose `X-Forwarded-*` fields are believed, with commas; default none.
///   `TRUST_PROXY` believes everybody's.
/// - `USE_X_FORWARDED_HOST`, `USE_X_FORWARDED_PORT`: whether trusted proxies tell the host and port that was signed.
/// - `SCOPE_PREFIX`: what scopes begin with; default `project:releng:roller:`.
/// - `REQUIRED_TASKCLUSTER_SCOPE_SETS`: scopes of which a caller needs one besides, with commas.
/// - `TASK_NAMES`: the actions that can be asked for, with commas; default all there are.
/// - `VALID_WORKER_ID_REGEX`: the workers that may be worked on; default all.
/// - `CLIENT_ID_REGEX`: the clients that may ask; default all.
/// - `FQDN_PATTERNS`: full names that `{worker_id}`, `{worker_group}`, `{provisioner_id}` and `{worker_type}` may make.
/// - `DUPLICATE_POLICY`: `join`, `reject` or `allow`; default `join`.
/// - `CREATES_PER_MINUTE`: requests of one client for jobs; default 60.
/// - `DESTRUCTIVE_PER_HOUR`: destructive jobs on one machine; default 6.
/// - `ROLLER_ADHOC_PING`: whether read-only actions may name workers nobody knows; default true.
/// - `ROLLER_PUBLIC_JOB_STATUS`: whether whoever knows a job's id may see its state; default true.
/// - `ROLLER_STRICT_H`: whether lists of jobs are refused as they were in 2018; default false.
/// - `ROLLER_SLAVEAPI_COMPAT`: whether the routes of the predecessor are answered; default false.
/// - `ROLLER_DRY_RUN`: whether nothing is touched, whatever is asked for; default false.
/// - `JOB_RETENTION`, `OUTPUT_RETENTION`: how long jobs and the output of attempts are kept; default 400d and 90d.
/// - `JOB_DEADLINE`: how long a job may wait before it expires; default 1h.
package struct RollerAPISettings: Sendable {
    package var allowedHosts = ["*"]
    package var origins = ["*"]
    package var trust = ProxyTrust.nobody
    package var usesForwardedHost = false
    package var usesForwardedPort = false
    package var scopePrefix = "project:releng:roller:"
    package var requiredScopes: [String] = []
    package var taskNames: [String]?
    /// Which workers may be worked on, and which clients may ask; nil means all.
    package var validWorker: RegularExpression?
    package var validClient: RegularExpression?
    package var fqdnPatterns: [String] = []
    package var duplicates = DuplicatePolicy.join
    package var limits = JobLimits()
    package var allowsUnknownWorkers = true
    package var showsStateToAll = true
    package var isStrict = false
    package var answersPredecessor = false
    package var isDryRun = false
    package var patience: Duration = .seconds(3600)
    package var seeds = SeedControllers()
    package var jobRetention: Duration = .seconds(400 * 86400)
    package var outputRetention: Duration = .seconds(90 * 86400)

    package init() {}

    package init(settings: Settings) {
        allowedHosts = Self.list(settings, "allowed.hosts", "host names that requests may be for") ?? allowedHosts
        origins = Self.list(settings, "cors.origin", "sites whose pages may call") ?? origins
        trust = ProxyTrust(settings: settings)
        usesForwardedHost = settings.bool("use.x.forwarded.host", default: false, "whether proxies tell the host")
        usesForwardedPort = settings.bool("use.x.forwarded.port", default: false, "whether proxies tell the port")
        scopePrefix = settings.string("scope.prefix", default: scopePrefix, "what scopes begin with")
        requiredScopes =
            Self.list(settings, "required.taskcluster.scope.sets", "scopes of which callers need one besides") ?? []
        taskNames = Self.list(settings, "task.names", "the actions that can be asked for")
        validWorker = settings.expression("valid.worker.id.regex", "workers that may be worked on")
        validClient = settings.expression("client.id.regex", "clients that may ask")
        fqdnPatterns = Self.list(settings, "fqdn.patterns", "full names made of a worker's names") ?? []
        for pattern in fqdnPatterns where !InventoryStore.isFullName(pattern) {
            settings.fail("fqdn.patterns", "names something in braces that no worker has: \(pattern)")
        }
        let policy = settings.string("duplicate.policy", default: "join", "what a second request leads to")
        if let known = DuplicatePolicy(rawValue: policy) {
            duplicates = known
        } else {
            settings.fail("duplicate.policy", "must be join, reject or allow")
        }
        limits = JobLimits(
            perClientAndMinute: settings.int(
                "creates.per.minute",
                default: 60,
                in: 1...1_000_000,
                "requests of one client for jobs in a minute"
            ),
            perMachineAndHour: settings.int(
                "destructive.per.hour",
                default: 6,
                in: 1...1_000_000,
                "destructive jobs on one machine in an hour"
            )
        )
        allowsUnknownWorkers = settings.bool("roller.adhoc.ping", default: true, "look at workers nobody knows")
        showsStateToAll = settings.bool("roller.public.job.status", default: true, "show the state of jobs to all")
        isStrict = settings.bool("roller.strict.h", default: false, "refuse lists of jobs")
        answersPredecessor = settings.bool(
            "roller.slaveapi.compat",
            default: false,
            "answer the routes of the predecessor"
        )
        isDryRun = settings.bool("roller.dry.run", default: false, "touch nothing")
        patience = settings.duration(
            "job.deadline",
            default: patience,
            in: .seconds(1)...(.seconds(30 * 86400)),
            "how long a job may wait before it expires"
        )
        seeds = SeedControllers(settings: settings)
        let ages: ClosedRange<Duration> = .seconds(3600) ... .seconds(36_500 * 86400)
        jobRetention = settings.duration("job.retention", default: jobRetention, in: ages, "how long jobs are kept")
        outputRetention = settings.duration(
            "output.retention",
            default: outputRetention,
            in: ages,
            "how long the output of attempts is kept"
        )
    }

    private static func list(_ settings: Settings, _ key: String, _ help: String) -> [String]? {
        settings.optional(key, help).map { text in
            text.split(separator: ",").map { String($0).trimmed }.filter { !$0.isEmpty }
        }
    }
}

extension Settings {
    /// Reads a regular expression in the language of Python; nil if there is none, or if it is none.
    func expression(_ key: String, default fallback: String? = nil, _ help: String) -> RegularExpression? {
        guard let text = optional(key, help) ?? fallback else { return nil }
        do throws(RegularExpression.Problem) { return try RegularExpression(text) } catch {
            fail(key, "is not a regular expression: \(error.message) at \(error.offset); it is \(help)")
            return nil
        }
    }
}

extension StringProtocol {
    /// The text without white space at its ends.
    var trimmed: String {
        guard let first = firstIndex(where: { !$0.isWhitespace }), let last = lastIndex(where: { !$0.isWhitespace })
        else { return "" }
        return String(self[first...last])
    }
}
