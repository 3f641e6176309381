// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
public import HTTPClient
import JSON
import Processes
import Schedules
import Synchronization
import Taskcluster
import TaskclusterClient
import WorkerKit

/// The worker: asks for a task, does it, and asks again until it is told to stop.
public struct Scriptworker: Sendable {
    private let configuration: ScriptworkerConfiguration
    private let transport: any HTTPTransport
    private let clock: ServerClock
    private let refusals = RefusalTimer()
    private let stop: StopControl
    private let log: WorkerLog
    private let heartbeat: Heartbeat
    private let client: TaskclusterClient
    private let files = FileWork()
    private let claims: ClaimRequest

    /// Prepares a worker; the log directory is made and its log opened.
    public init(_ configuration: ScriptworkerConfiguration, transport: any HTTPTransport, stop: StopControl) throws {
        self.configuration = configuration
        self.stop = stop
        try TaskDirectories.make(configuration.logDirectory)
        let log = WorkerLog(configuration)
        let heartbeat = Heartbeat(path: configuration.heartbeatPath)
        self.log = log
        self.heartbeat = heartbeat
        let clock = ServerClock(transport, rootURL: configuration.rootURL) { offset in
            let seconds = offset.components.seconds
            log.warning("this host's clock is \(abs(seconds)) s \(seconds < 0 ? "ahead of" : "behind") the queue's")
            heartbeat.update(["clockOffset": .init(Int(seconds))])
        }
        self.clock = clock
        self.transport = clock
        let source = configuration.credentials
        client = TaskclusterClient(
            rootURL: configuration.rootURL,
            credentials: { source.current },
            transport: clock,
            now: { clock.now() }
        )
        claims = ClaimRequest(
            queueID: configuration.queueID,
            workerGroup: configuration.file.text("worker_group"),
            workerID: configuration.file.text("worker_id"),
            timeout: configuration.file.seconds("claim_timeout")
        )
        log.hide([source.current.accessToken, configuration.file.text("github_oauth_token")])
    }

    /// Works until told to stop; returns the exit status.
    public func run() async -> Int32 {
        let lock: WorkerLock
        do {
            guard let free = try WorkerLock(directory: configuration.logDirectory) else {
                log.critical("another worker uses \(configuration.logDirectory)")
                return 1
            }
            lock = free
        } catch {
            log.critical("\(error)")
            return 1
        }
        defer { lock.release() }
        stop.observe(
            reload: {
                log.reopen()
                configuration.credentials.refresh()
            },
            effect: { log.info($0) }
        )
        heartbeat.update(["publicKey": configuration.signingKey.map { .string($0.publicKey) } ?? nil])
        log.info("Scriptworker starting up: slipway \(Release.version), \(Timestamp.now()) UTC, pid \(getpid())")
        for warning in configuration.warnings { log.warning(warning) }
        if configuration.ownsProcess { ProcessTree.adoptOrphans() }
        endPredecessor()
        guard await canConfine() else { return 1 }
        let status: StatusServer?
        do {
            status = try statusServer()
        } catch {
            log.critical("\(error)")
            return 1
        }
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await beat() }
            if let status { group.addTask { await status.run() } }
            await rest(configuration.file.seconds("startup_jitter") * Double.random(in: 0...1))
            await work()
            group.cancelAll()
        }
        heartbeat.update(["state": "exit"])
        log.info("stopped")
        return refusals.hasGivenUp ? 4 : 0
    }

    private func statusServer() throws -> StatusServer? {
        let place = configuration.file.text("status_listen")
        guard !place.isEmpty else { return nil }
        let server = try StatusServer(place, configuration: configuration, transport: transport)
        log.info("status on port \(server.port)")
        return server
    }

    /// Tries the sandbox before a task depends on it.
    private func canConfine() async -> Bool {
        guard configuration.sandbox != nil else { return true }
        let path = "\(configuration.logDirectory)/sandbox.log"
        unlink(path)
        do {
            let output = try OutputLog(path: path)
            var request = ProcessRequest(["/bin/true"], environment: [:], output: output)
            request.sandbox = configuration.sandbox
            let outcome = await (try RunningProcess.start(request)).outcome()
            if outcome.status == .exited(0) { return true }
            let text = (try? FileText.read(path)) ?? ""
            log.critical("scripts cannot be confined here: \(text.split(separator: "\n").last ?? "\(outcome.status)")")
        } catch {
            log.critical("scripts cannot be confined here: \(error)")
        }
        return false
    }

    /// Writes the heartbeat every ten seconds, and a line in the log every minute: both are signs of life to monitors.
    private func beat() async {
        let interval = configuration.file.seconds("log_alive_interval")
        let pause = min(interval, .seconds(10))
        var silence = Duration.zero
        while !Task.isCancelled {
            heartbeat.update(["freeDiskBytes": .init(freeBytes())])
            ProcessTree.reapUnlessRunning()
            guard (try? await Task.sleep(for: pause)) != nil else { return }
            silence += pause
            if silence >= interval {
                log.info("alive state=\(heartbeat.state)")
                silence = .zero
            }
        }
    }

    private func work() async {
        let interval = configuration.file.seconds("poll_interval")
        while !stop.isLeaving, !refusals.hasGivenUp {
            guard isReady() else {
                await rest(max(interval, .seconds(1)))
                continue
            }
            let answer = await pollOnce()
            let pause = ClaimPacing.pause(after: answer, interval: interval)
            if pause > .zero { await rest(pause) }
        }
    }

    /// Sleeps, but no longer than until told to leave.
    private func rest(_ pause: Duration) async {
        guard !stop.isLeaving else { return }
        _ = try? await withTimeout(pause) { await stop.draining.wait() }
    }

    private func isReady() -> Bool {
        do {
            let isMarked = configuration.file.flag("require_dir_marker")
            try TaskDirectories.clean(configuration.workDirectory, isMarked: isMarked)
            try TaskDirectories.clean(configuration.artifactDirectory, isMarked: isMarked)
            try TaskDirectories.clean(configuration.taskLogDirectory)
            if isMarked { try TaskDirectories.mark(configuration.logDirectory) }
        } catch {
            log.critical("cannot clean up, so no task is claimed: \(error)")
            heartbeat.update(["state": "cleanup_failed", "lastError": .string("\(error)")])
            return false
        }
        let wanted = configuration.file.whole("min_free_disk_bytes")
        guard wanted > 0 else { return true }
        let free = freeBytes()
        if free < wanted {
            log.warning("only \(free) bytes are free, so no task is claimed")
            heartbeat.update(["state": "disk_full", "lastError": "not enough free disk"])
            return false
        }
        return true
    }

    /// What is free where the least is.
    private func freeBytes() -> Int {
        let paths = [
            configuration.workDirectory, configuration.artifactDirectory, configuration.taskLogDirectory,
            configuration.logDirectory,
        ]
        return paths.compactMap { path in
            var info = statvfs()
            return statvfs(path, &info) == 0 ? Int(info.f_bavail) * Int(info.f_frsize) : nil
        }.min() ?? 0
    }

    private func pollOnce() async -> ClaimPacing.Answer {
        configuration.credentials.refresh()
        log.hide([configuration.credentials.current.accessToken])
        heartbeat.update(["state": "polling", "lastClaimAttempt": .string(Timestamp.now().iso8601)])
        let start = ContinuousClock.now
        let found: [Claim]
        do {
            found = try await claimGently()
            heartbeat.claim(failedWith: nil)
            refusals.note(isRefused: false)
        } catch let error as TaskclusterError {
            log.warning("cannot claim work: \(error)")
            refusals.note(isRefused: error.status == 401 || error.status == 403)
            let limit = configuration.file.seconds("auth_failure_exit_after")
            if limit > .zero, refusals.giveUp(after: limit) {
                log.critical("the queue has refused these credentials for \(limit); leaving")
            }
            heartbeat.claim(failedWith: "\(error)")
            return .failure
        } catch {
            return .failure
        }
        guard !found.isEmpty else {
            log.debug("no work")
            return .nothing(after: ContinuousClock.now - start)
        }
        let keepers = found.compactMap(keeper)
        await process(keepers[...])
        return .work
    }

    /// Asks for work; told to stop meanwhile, gives the queue a moment to answer, since an answer on its way is a task lost.
    private func claimGently() async throws -> [Claim] {
        let grace = configuration.file.seconds("shutdown_claim_grace")
        return try await withThrowingTaskGroup(of: [Claim]?.self) { group in
            group.addTask { try await claims.send(client) { log.error($0) } }
            group.addTask {
                _ = await stop.stopping.wait()
                try? await Task.sleep(for: grace)
                return nil
            }
            defer { group.cancelAll() }
            return try await group.next()?.flatMap { $0 } ?? []
        }
    }

    private func keeper(_ claim: Claim) -> (ClaimKeeper, CredentialsFile)? {
        let file: CredentialsFile
        do {
            file = try CredentialsFile(claim.credentials)
        } catch {
            log.error("cannot make a file for the credentials of \(claim.taskID): \(error)")
            return nil
        }
        log.hide([claim.credentials.accessToken])
        let keeper = ClaimKeeper(
            claim,
            interval: configuration.file.seconds("reclaim_interval"),
            now: { [clock] in clock.now() },
            makeClient: { [configuration, clock] credentials in
                TaskclusterClient(
                    rootURL: configuration.rootURL,
                    credentials: credentials,
                    transport: clock,
                    now: { clock.now() }
                )
            },
            onCredentials: { [log] credentials in
                log.hide([credentials.accessToken])
                file.update(credentials)
            },
            onRenewal: { [heartbeat] until in
                heartbeat.update([
                    "takenUntil": .string(until.iso8601), "lastReclaimOk": .string(Timestamp.now().iso8601),
                ])
            },
            onProblem: { [log] in log.warning($0) }
        )
        return (keeper, file)
    }

    /// Does one task after another, all of them kept claimed until their turn is over.
    private func process(_ keepers: ArraySlice<(ClaimKeeper, CredentialsFile)>) async {
        guard let (keeper, file) = keepers.last else { return }
        let earlier = keepers.dropLast()
        await keeper.holding {
            await process(earlier)
            await process(keeper, file)
        }
    }

    private func process(_ keeper: ClaimKeeper, _ file: CredentialsFile) async {
        let claim = keeper.claim
        guard stop.stopping.value == nil else {
            let outcome = await TaskReporter(keeper) { log.warning($0) }.report(.exception("worker-shutdown"))
            return log.info("gave task \(claim.taskID) back unstarted: \(outcome)")
        }
        remember(claim)
        heartbeat.update([
            "state": "claimed", "taskId": .string(claim.taskID), "runId": .init(claim.runID),
            "takenUntil": .string(keeper.takenUntil.iso8601),
        ])
        await TaskRun(
            configuration: configuration,
            keeper: keeper,
            credentials: file,
            transport: transport,
            files: files,
            stop: stop,
            log: log,
            heartbeat: heartbeat,
            workerClient: client
        ).run()
        heartbeat.update(["state": "cleaning", "taskId": nil, "runId": nil, "takenUntil": nil])
        _ = isReady()
        unlink(noteOfTask)
    }

    // MARK: - What a crashed predecessor left

    private var noteOfTask: String { "\(configuration.logDirectory)/scriptworker.task.json" }

    private func remember(_ claim: Claim) {
        let note: JSONValue = ["taskId": .string(claim.taskID), "runId": .init(claim.runID)]
        do {
            try FileText.replace(noteOfTask, with: note.bytes())
        } catch {
            log.warning("if this worker dies, the next one will not know what to end: \(error)")
        }
    }

    private func endPredecessor() {
        guard let text = try? FileText.bytes(noteOfTask), let note = try? JSONValue(parsing: text),
            let taskID = note["taskId"]?.string, let runID = note["runId"]?.int
        else { return }
        let ended = ProcessTree.endMarked(TaskRun.markers(taskID, runID))
        log.warning("an earlier worker died while it ran \(taskID); ended \(ended) processes it left")
        unlink(noteOfTask)
    }
}

/// How long the queue has refused this worker's credentials.
private final class RefusalTimer: Sendable {
    private let state = Mutex<(since: ContinuousClock.Instant?, hasGivenUp: Bool)>((nil, false))

    var hasGivenUp: Bool { state.withLock { $0.hasGivenUp } }

    func note(isRefused: Bool) {
        state.withLock { $0.since = isRefused ? $0.since ?? .now : nil }
    }

    func giveUp(after limit: Duration) -> Bool {
        state.withLock { state in
            if let since = state.since, ContinuousClock.now - since >= limit { state.hasGivenUp = true }
            return state.hasGivenUp
        }
    }
}
