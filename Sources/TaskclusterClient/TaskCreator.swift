// SPDX-License-Identifier: MPL-2.0

public import Core
import HTTPClient
import JSON
import Synchronization

/// A task to create.
public struct TaskRequest: Sendable {
    /// The id of the task.
    public let taskID: String
    /// Its definition as JSON text, sent as it is.
    public let definition: String
    /// What creating it may use of the client's scopes; nil for all of them.
    public let authorizedScopes: [String]?

    /// Describes a task.
    public init(taskID: String, definition: String, authorizedScopes: [String]? = nil) {
        self.taskID = taskID
        self.definition = definition
        self.authorizedScopes = authorizedScopes
    }
}

/// Creates tasks, those that are wanted at the same time in one call where the deployment's queue can do that.
///
/// Every task is created or refused by itself. A queue that only knows `createTask` is sent one call for each task.
public final class TaskCreator: Sendable {
    private let calls: QueueCalls
    private let rounds: Coalescer<TaskRequest, CreationVerdict>

    /// Uses a client; one attempt may take as long as `timeout`.
    ///
    /// By default so many calls may be under way that one which hangs does not hold up everybody. `expecting` tells how many
    /// tasks may be wanted soon.
    public init(
        client: TaskclusterClient,
        timeout: Duration = .seconds(10),
        concurrency: Int = 4,
        expecting: (@Sendable () -> Int)? = nil
    ) {
        let calls = QueueCalls(client: client, timeout: timeout)
        self.calls = calls
        rounds = Coalescer(concurrency: concurrency, expecting: expecting) {
            await calls.create($0).map { .success($0) }
        }
    }

    /// How many tasks wait for a call to begin.
    package var waiting: Int { rounds.waiting }

    /// Returns when the task exists; repeating the same request is harmless.
    ///
    /// Failures that may pass are repeated as the policy says. A call that is under way is waited for, even by a caller who
    /// is cancelled meanwhile.
    public func create(_ task: TaskRequest, retry: RetryPolicy = .taskcluster) async throws(TaskclusterError) {
        var attempt = 1
        while true {
            guard let error = await attemptOnce(task) else { return }
            attempt += 1
            guard error.isRetriable, attempt <= retry.attempts, !Task.isCancelled else { throw error }
            // A cancelled pause gives the failure that made it necessary.
            guard (try? await Task.sleep(for: retry.delay(before: attempt))) != nil else { throw error }
        }
    }

    private func attemptOnce(_ task: TaskRequest) async -> TaskclusterError? {
        // A round answers for each task and never throws; without an answer the task goes its own way.
        guard calls.mayJoin, let verdict = try? await rounds.submit(task) else { return await calls.createAlone(task) }
        return switch verdict {
        case .created: nil
        case .failed(let error): error
        case .alone: await calls.createAlone(task)
        }
    }
}

/// What a round says about one of its tasks.
private enum CreationVerdict: Sendable {
    case created
    case failed(TaskclusterError)
    /// It is to be created in a call of its own.
    case alone

    init(_ error: TaskclusterError?) {
        self = error.map { .failed($0) } ?? .created
    }
}

/// The calls that create tasks, and whether the queue takes several at a time.
private final class QueueCalls: Sendable {
    private let client: TaskclusterClient
    private let timeout: Duration
    /// Until when the queue is taken at its word that it takes only one task at a time.
    private let aloneUntil = Mutex<ContinuousClock.Instant?>(nil)

    private static let once = RetryPolicy(attempts: 1, base: .zero, maximum: .zero)
    /// A queue may learn it with its next release.
    private static let memory = Duration.seconds(300)
    /// Far below what services take as a body.
    private static let largestBody = 2 << 20

    init(client: TaskclusterClient, timeout: Duration) {
        self.client = client
        self.timeout = timeout
    }

    /// Whether several tasks may be sent in one call.
    var mayJoin: Bool { aloneUntil.withLock { $0.map { $0 < .now } ?? true } }

    func create(_ tasks: [TaskRequest]) async -> [CreationVerdict] {
        if tasks.count == 1 { return [CreationVerdict(await createAlone(tasks[0]))] }
        let each = [CreationVerdict](repeating: .alone, count: tasks.count)
        guard mayJoin, tasks.reduce(0, { $0 + $1.definition.utf8.count }) <= Self.largestBody else { return each }
        do throws(TaskclusterError) {
            let response = try await client.response(
                "queue",
                "POST",
                ["tasks", "create"],
                bodyText: Self.body(tasks),
                retry: Self.once,
                timeout: timeout
            )
            // What is not understood is asked again in the way that everybody understands.
            return verdicts(response, tasks) ?? each
        } catch {
            switch error.status {
            case nil, .some(500...): return tasks.map { _ in .failed(error) }
            case 404, 405: aloneUntil.withLock { $0 = .now + Self.memory }
            default: break
            }
            return each
        }
    }

    func createAlone(_ task: TaskRequest) async -> TaskclusterError? {
        do throws(TaskclusterError) {
            let response = try await client.response(
                "queue",
                "PUT",
                ["task", task.taskID],
                bodyText: Array(task.definition.utf8),
                authorizedScopes: task.authorizedScopes,
                retry: Self.once,
                timeout: timeout
            )
            guard response.status != 204, !response.body.isEmpty, (try? response.json()) == nil else { return nil }
            return TaskclusterError(
                status: response.status,
                code: "InvalidResponse",
                message: "the answer is not JSON",
                method: "PUT",
                url: client.url("queue", ["task", task.taskID]),
                isRetriable: false
            )
        } catch {
            return error
        }
    }

    private static func body(_ tasks: [TaskRequest]) -> [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity(tasks.reduce(64) { $0 + $1.definition.utf8.count + 200 })
        text += "{\"tasks\":[".utf8
        for (index, task) in tasks.enumerated() {
            text += (index > 0 ? ",{\"taskId\":" : "{\"taskId\":").utf8
            text += JSONValue(task.taskID).bytes()
            if let scopes = task.authorizedScopes {
                text += ",\"authorizedScopes\":".utf8
                text += JSONValue(scopes).bytes()
            }
            text += ",\"task\":".utf8
            text += task.definition.utf8
            text.append(UInt8(ascii: "}"))
        }
        text += "]}".utf8
        return text
    }

    /// What the answer says about each task; nil if it does not.
    private func verdicts(_ response: HTTPResponse, _ tasks: [TaskRequest]) -> [CreationVerdict]? {
        guard response.status == 200, let results = (try? response.json())?["results"]?.array,
            results.count == tasks.count
        else { return nil }
        var verdicts: [CreationVerdict] = []
        for (task, result) in zip(tasks, results) {
            guard result["taskId"]?.string == task.taskID, let status = result["statusCode"]?.int else { return nil }
            verdicts.append(CreationVerdict(status < 300 ? nil : error(status, result["error"], of: task)))
        }
        return verdicts
    }

    private func error(_ status: Int, _ body: JSONValue?, of task: TaskRequest) -> TaskclusterError {
        TaskclusterError(
            status: status,
            body: body,
            method: "PUT",
            url: client.url("queue", ["task", task.taskID])
        )
    }
}
