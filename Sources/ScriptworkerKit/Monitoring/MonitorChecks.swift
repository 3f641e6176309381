// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
public import HTTPClient
import JSON
import Schedules
import TaskclusterClient
import WorkerKit

/// Looks at a worker on this machine the way monitoring systems do.
public struct MonitorChecks: Sendable {
    /// The limits and wishes of one check.
    public struct Options: Sendable {
        /// Alerts when the value is outside; the check's own limit unless given.
        public var warning: String?
        /// The same for the graver alert.
        public var critical: String?
        /// How long the check may take.
        public var timeout: Duration = .seconds(10)
        /// Whether the queue is asked for its oldest pending task, too.
        public var looksAtOldest = false

        /// The check's own limits.
        public init() {}
    }

    /// Every check, in the order in which `all` runs them.
    public static let names = [
        "process", "log", "heartbeat", "claim", "queue", "disk", "load", "time", "config", "key", "host", "github",
        "all",
    ]

    let configuration: ScriptworkerConfiguration
    let configurationPath: String
    let transport: any HTTPTransport

    /// Prepares checks of the worker with this configuration file.
    public init(configurationPath: String, transport: any HTTPTransport) throws {
        self.configurationPath = configurationPath
        configuration = try ScriptworkerConfiguration(path: configurationPath)
        self.transport = transport
    }

    init(configuration: ScriptworkerConfiguration, configurationPath: String, transport: any HTTPTransport) {
        self.configuration = configuration
        self.configurationPath = configurationPath
        self.transport = transport
    }

    /// Runs one check from nothing but its words; whatever goes wrong is an answer as well.
    public static func result(
        _ name: String,
        configurationPath: String,
        options: Options,
        transport: any HTTPTransport
    ) async -> CheckResult {
        guard names.contains(name) else {
            return CheckResult(name, .unknown, "no such check; there are \(names.joined(separator: ", "))")
        }
        for text in [options.warning, options.critical] {
            for text in text?.split(separator: ",") ?? [] where CheckRange(String(text)) == nil {
                return CheckResult(name, .unknown, "\(text) is not a range")
            }
        }
        let checks: MonitorChecks
        do {
            checks = try MonitorChecks(configurationPath: configurationPath, transport: transport)
        } catch {
            let text = "\(error)".split(separator: "\n").joined(separator: "; ")
            return CheckResult(name, name == "config" ? .critical : .unknown, "\(configurationPath): \(text)")
        }
        do {
            return try await withTimeout(options.timeout) { await checks.check(name, options) }
        } catch {
            return CheckResult(name, .unknown, "no result within \(options.timeout)")
        }
    }

    func check(_ name: String, _ options: Options) async -> CheckResult {
        switch name {
        case "process": process()
        case "log": logAge(options)
        case "heartbeat": heartbeat(options)
        case "claim": claim(options)
        case "queue": await queue(options)
        case "disk": disk(options)
        case "load": load(options)
        case "time": await time(options)
        case "config": configurationAge()
        case "key": key()
        case "host": await host(options)
        case "github": await github(options)
        default: await all(options)
        }
    }

    private func all(_ options: Options) async -> CheckResult {
        var plain = options
        plain.warning = nil
        plain.critical = nil
        var results: [CheckResult] = []
        for name in Self.names where !["all", "queue", "load", "github"].contains(name) {
            results.append(await check(name, plain))
        }
        let state = results.map(\.state).reduce(.ok, CheckResult.State.worst)
        let bad = results.filter { $0.state != .ok }.map(\.name)
        let text = bad.isEmpty ? "\(results.count) checks are well" : "look at \(bad.joined(separator: ", "))"
        let lines = results.map { "\($0.name.uppercased()) \($0.state.word) - \($0.text)" }
        return CheckResult("all", state, text, results.flatMap(\.measures).map(\.withoutLimits), details: lines)
    }

    func measure(
        _ label: String,
        _ value: Double,
        _ unit: String = "",
        _ options: Options,
        _ warning: String?,
        _ critical: String?
    ) -> CheckResult.Measure {
        CheckResult.Measure(
            label: label,
            value: value,
            unit: unit,
            warning: (options.warning ?? warning).flatMap(CheckRange.init),
            critical: (options.critical ?? critical).flatMap(CheckRange.init),
            minimum: 0
        )
    }

    // MARK: - This machine

    private func process() -> CheckResult {
        let path = "\(configuration.logDirectory)/scriptworker.lock"
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { return CheckResult("process", .critical, "no worker has run here") }
        defer { close(descriptor) }
        if flock(descriptor, LOCK_EX | LOCK_NB) == 0 {
            return CheckResult("process", .critical, "no worker is running")
        }
        let text = (try? FileText.read(path)) ?? ""
        guard let process = Int32(text.filter(\.isNumber)) else {
            return CheckResult("process", .ok, "a worker is running")
        }
        let age = Double(Timestamp.now().milliseconds - changed(path)) / 1000
        let measure = CheckResult.Measure(label: "age", value: age, unit: "s", minimum: 0)
        return CheckResult("process", .ok, "worker \(process) is running", [measure])
    }

    private func changed(_ path: String) -> Int64 {
        var info = stat()
        guard stat(path, &info) == 0 else { return 0 }
        return Int64(info.st_mtim.tv_sec) * 1000 + Int64(info.st_mtim.tv_nsec) / 1_000_000
    }

    private func logAge(_ options: Options) -> CheckResult {
        let path = "\(configuration.logDirectory)/worker.log"
        let written = changed(path)
        guard written > 0 else { return CheckResult("log", .critical, "there is no worker.log") }
        let age = max(0, Double(Timestamp.now().milliseconds - written) / 1000)
        let measure = measure("age", age.rounded(), "s", options, "300", "360")
        return CheckResult("log", .ok, "worker.log written \(Int(age)) s ago", [measure])
    }

    private func beat() -> JSONValue? { try? JSONValue(parsing: FileText.bytes(configuration.heartbeatPath)) }

    private func age(_ value: JSONValue?) -> Double? {
        guard let time = value?.string.flatMap({ Timestamp($0) }) else { return nil }
        return Double((Timestamp.now() - time).components.seconds)
    }

    private func heartbeat(_ options: Options) -> CheckResult {
        guard let beat = beat(), let age = age(beat["updated"]) else {
            return CheckResult("heartbeat", .critical, "there is no heartbeat")
        }
        let measure = measure("age", max(0, age), "s", options, "60", "180")
        let state = beat["state"]?.string ?? "?"
        let since = self.age(beat["since"]) ?? 0
        let limit = Double(configuration.file.seconds("task_max_timeout").components.seconds) + 120
        let isStuck = (state == "running" && since > limit) || (state == "finishing" && since > 1800)
        let isBroken = state == "cleanup_failed" || beat["leftoverProcesses"]?.bool == true
        var text = "\(state) for \(Int(since)) s"
        if isBroken { text += ", \(beat["lastError"]?.string ?? "processes are left over")" }
        return CheckResult("heartbeat", isStuck || isBroken ? .critical : .ok, text, [measure])
    }

    private func claim(_ options: Options) -> CheckResult {
        guard let beat = beat() else { return CheckResult("claim", .critical, "there is no heartbeat") }
        let errors = Double(beat["consecutiveClaimErrors"]?.int ?? 0)
        let counted = CheckResult.Measure(label: "errors", value: errors, unit: "c")
        if let until = beat["takenUntil"]?.string.flatMap({ Timestamp($0) }) {
            let slack = Double((until - Timestamp.now()).components.seconds)
            let measure = measure("slack", slack, "s", options, "240:", "60:")
            return CheckResult("claim", .ok, "the claim lasts \(Int(slack)) s more", [measure, counted])
        }
        let start = beat["lastClaimOk"]?.string == nil ? beat["since"] : beat["lastClaimOk"]
        // A queue may hold the request for a while; only failures make the time count.
        let age = errors == 0 ? 0 : self.age(start) ?? 0
        let measure = measure("claim_age", age, "s", options, "120", "300")
        let text =
            errors == 0
            ? "claims are answered"
            : "no claim for \(Int(age)) s: \(URLMask.masked(beat["lastError"]?.string ?? "?").prefix(300))"
        return CheckResult("claim", .ok, text, [measure, counted])
    }

    private func disk(_ options: Options) -> CheckResult {
        var measures: [CheckResult.Measure] = []
        var texts: [String] = []
        var seen: Set<UInt> = []
        for key in ["work_dir", "artifact_dir", "task_log_dir", "log_dir"] {
            var path = configuration.file.text(key)
            // Directories that a task will make lie where their parents are.
            while access(path, F_OK) != 0, let slash = path.lastIndex(of: "/"), slash > path.startIndex {
                path = String(path[..<slash])
            }
            var info = statvfs()
            var place = stat()
            guard statvfs(path, &info) == 0, stat(path, &place) == 0, seen.insert(place.st_dev).inserted else {
                continue
            }
            let total = Double(info.f_blocks) * Double(info.f_frsize)
            let free = Double(info.f_bavail) * Double(info.f_frsize)
            let share = total > 0 ? free / total * 100 : 100
            let inodes = info.f_files > 0 ? Double(info.f_favail) / Double(info.f_files) * 100 : 100
            measures.append(measure(key, share, "%", options, "10%:", "5%:"))
            measures.append(measure("\(key)_inodes", inodes, "%", options, "10%:", "5%:"))
            texts.append("\(path) \(Int(share)) % and \(Int(free) >> 20) MiB free")
        }
        guard !measures.isEmpty else { return CheckResult("disk", .unknown, "none of the directories can be read") }
        return CheckResult("disk", .ok, texts.joined(separator: ", "), measures)
    }

    private func load(_ options: Options) -> CheckResult {
        var loads = [0.0, 0.0, 0.0]
        guard getloadavg(&loads, 3) == 3 else { return CheckResult("load", .unknown, "the load cannot be read") }
        let processors = Double(max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))))
        let warnings = (options.warning ?? "2,1.5,1").split(separator: ",").map(String.init)
        let criticals = (options.critical ?? "4,3,2").split(separator: ",").map(String.init)
        let measures = zip(["load1", "load5", "load15"], loads).enumerated().map { index, pair in
            CheckResult.Measure(
                label: pair.0,
                value: pair.1 / processors,
                unit: "",
                warning: warnings.indices.contains(index) ? CheckRange(warnings[index]) : nil,
                critical: criticals.indices.contains(index) ? CheckRange(criticals[index]) : nil,
                minimum: 0
            )
        }
        return CheckResult("load", .ok, "load per processor", measures)
    }

    private func configurationAge() -> CheckResult {
        let started = changed("\(configuration.logDirectory)/scriptworker.lock")
        guard started > 0, changed(configurationPath) > started else {
            return CheckResult("config", .ok, "the worker runs with the configuration as it is")
        }
        return CheckResult("config", .warning, "the configuration is newer than the worker: restart it")
    }

    private func key() -> CheckResult {
        guard configuration.file.flag("sign_chain_of_trust") else {
            return CheckResult("key", .ok, "nothing is signed")
        }
        // A key that came through a descriptor is known to the worker alone.
        guard let key = configuration.signingKey?.publicKey ?? beat()?["publicKey"]?.string else {
            return CheckResult("key", .critical, "no worker has read its signing key")
        }
        let listed = configuration.file.values["ed25519_public_keys"]?["scriptworker"]?.array ?? []
        guard listed.contains(.string(key)) else {
            return CheckResult("key", .critical, "ed25519_public_keys lists no key for the private one")
        }
        return CheckResult("key", .ok, "the signing key matches \(key)")
    }
}

extension CheckResult.Measure {
    /// The value alone: a summary's state comes from the checks.
    var withoutLimits: CheckResult.Measure {
        CheckResult.Measure(label: label, value: value, unit: unit, minimum: minimum)
    }
}
