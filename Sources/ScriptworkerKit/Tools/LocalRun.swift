// SPDX-License-Identifier: MPL-2.0

import Glibc
public import HTTPClient
import JSON
import Processes
import Schedules
import Taskcluster
import TaskclusterClient
import WorkerKit
import YAMLReader

/// Runs the script step of a task from a file, without a queue: for trying out scripts.
public enum LocalRun {
    /// Runs the script as the worker would; returns the code the task would be resolved with.
    ///
    /// The task's directories are left as they are afterwards, to be looked at.
    public static func run(
        _ configuration: ScriptworkerConfiguration,
        taskPath: String,
        transport: any HTTPTransport,
        note: (String) -> Void
    ) async throws -> Int32 {
        let task: JSONValue
        do {
            task = try JSONValue(parsing: FileText.bytes(taskPath))
        } catch {
            throw ChainProblem("\(taskPath) cannot be read: \(error)")
        }
        try TaskDirectories.make(configuration.logDirectory)
        guard let lock = try WorkerLock(directory: configuration.logDirectory) else {
            throw ChainProblem("a worker uses \(configuration.logDirectory)")
        }
        defer { lock.release() }
        let isMarked = configuration.file.flag("require_dir_marker")
        for path in [configuration.workDirectory, configuration.artifactDirectory] {
            try TaskDirectories.clean(path, isMarked: isMarked)
        }
        try TaskDirectories.clean(configuration.taskLogDirectory)
        for warning in directoryWarnings(configuration) { note(warning) }
        let run: JSONValue = [
            "status": ["taskId": .string(configuration.environment["TASK_ID"] ?? Slugid.make())],
            "runId": .init(configuration.environment["RUN_ID"].flatMap { Int($0) } ?? 0),
            "workerGroup": .string(configuration.file.text("worker_group")),
            "workerId": .string(configuration.file.text("worker_id")),
            "takenUntil": .string(Timestamp.farFuture.iso8601),
            "task": task,
            "credentials": ["clientId": "local", "accessToken": "local-run-without-a-queue"],
        ]
        guard let claim = Claim(run) else { throw ChainProblem("\(taskPath) does not hold a task") }
        let log = WorkerLog(configuration)
        let keeper = ClaimKeeper(
            claim,
            interval: .seconds(300),
            makeClient: { TaskclusterClient(rootURL: configuration.rootURL, credentials: $0, transport: transport) },
            onCredentials: { _ in },
            onProblem: { _ in }
        )
        ProcessTree.adoptOrphans()
        let source = configuration.credentials
        let taskRun = TaskRun(
            configuration: configuration,
            keeper: keeper,
            credentials: try CredentialsFile(claim.credentials),
            transport: transport,
            files: FileWork(),
            stop: StopControl(),
            log: log,
            heartbeat: Heartbeat(path: "\(configuration.workDirectory)/.heartbeat.json"),
            workerClient: TaskclusterClient(
                rootURL: configuration.rootURL,
                credentials: { source.current },
                transport: transport
            )
        )
        let code = try await taskRun.work()
        unlink("\(configuration.workDirectory)/.heartbeat.json")
        note("the task would be resolved as \(code.resolution(reversed: configuration.reversedStatuses))")
        return code.number
    }

    /// Scripts read the directories from a file of their own, which the worker never sees.
    private static func directoryWarnings(_ configuration: ScriptworkerConfiguration) -> [String] {
        var warnings: [String] = []
        for path in configuration.file.texts("task_script").dropFirst() {
            guard [".json", ".yaml", ".yml"].contains(where: path.hasSuffix), let text = try? FileText.read(path),
                let own = try? YAML.value(of: text)
            else { continue }
            for key in ["work_dir", "artifact_dir"] {
                guard let value = own[key]?.string, value != configuration.file.text(key) else { continue }
                warnings.append(
                    "warning: \(path) has the \(key) \(value), the worker has \(configuration.file.text(key))"
                )
            }
        }
        return warnings
    }
}

/// The lock that keeps two workers from using the same directories.
public final class WorkerLock: Sendable {
    private let descriptor: Int32

    /// Takes the lock; nil when a worker holds it.
    public init?(directory: String) throws {
        descriptor = open("\(directory)/scriptworker.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw FileError("cannot open the lock in \(directory)", errno) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            let code = errno
            close(descriptor)
            guard code == EWOULDBLOCK else { throw FileError("cannot lock \(directory)", code) }
            return nil
        }
        let process = Array("\(getpid())\n".utf8)
        ftruncate(descriptor, 0)
        _ = pwrite(descriptor, process, process.count, 0)
    }

    /// Gives the lock back.
    public func release() { flock(descriptor, LOCK_UN) }

    deinit { close(descriptor) }

    /// The process that holds the lock of a directory; nil when none does.
    public static func holder(directory: String) -> Int32? {
        let path = "\(directory)/scriptworker.lock"
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        guard flock(descriptor, LOCK_EX | LOCK_NB) != 0 else { return nil }
        return (try? FileText.read(path)).flatMap { Int32($0.filter(\.isNumber)) }
    }
}

/// Asks a worker to finish and waits until it has.
public enum Drain {
    /// Sends SIGUSR1 every five seconds; returns whether the worker ended in time.
    public static func run(_ configuration: ScriptworkerConfiguration, timeout: Duration?) async throws -> Bool {
        let start = ContinuousClock.now
        var next = start
        while let process = WorkerLock.holder(directory: configuration.logDirectory) {
            let now = ContinuousClock.now
            if let timeout, now - start >= timeout { return false }
            if now >= next {
                kill(process, SIGUSR1)
                next = now + .seconds(5)
            }
            try await Task.sleep(for: .milliseconds(200))
        }
        return true
    }
}

/// The way by which this executable confines itself before it becomes a script.
public enum ScriptStart {
    /// Becomes the script when the arguments say so; otherwise returns at once.
    public static func becomeScript(ifAskedBy arguments: [String]) {
        if arguments.first == Sandbox.command { Sandbox.enter(arguments) }
    }
}
