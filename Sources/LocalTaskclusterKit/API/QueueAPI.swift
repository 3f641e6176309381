// SPDX-License-Identifier: MPL-2.0
public import APIServer
import JSON
public import Schedules
import Taskcluster

/// The queue's endpoints.
public struct QueueAPI: Sendable {
    let store: QueueStore
    let dispatch: ClaimDispatch
    let directory: DirectoryStore
    let activity: WorkerActivity
    let workers: WorkerStore
    let blobs: any BlobStore
    let objects: ObjectStore
    let limits: TaskCreation
    let claimWorkTimeout: Duration
    let now: @Sendable () -> Timestamp

    /// Puts the endpoints together.
    public init(
        store: QueueStore,
        dispatch: ClaimDispatch,
        directory: DirectoryStore,
        activity: WorkerActivity,
        workers: WorkerStore,
        blobs: any BlobStore,
        objects: ObjectStore,
        limits: TaskCreation = TaskCreation(),
        claimWorkTimeout: Duration = .seconds(20),
        now: @escaping @Sendable () -> Timestamp
    ) {
        self.store = store
        self.dispatch = dispatch
        self.directory = directory
        self.activity = activity
        self.workers = workers
        self.blobs = blobs
        self.objects = objects
        self.limits = limits
        self.claimWorkTimeout = claimWorkTimeout
        self.now = now
    }

    /// The API over a folder of schemas.
    public func api(schemas: SchemaStore) -> API {
        API(
            service: "queue",
            title: "Queue",
            description: "Accepts tasks, hands them to workers and keeps their results.",
            schemas: schemas,
            endpoints: taskEndpoints + groupEndpoints + workEndpoints + artifactEndpoints + queueEndpoints
                + workerEndpoints,
            exchanges: QueueMessages.references
        )
    }

    static let taskParameters: [String: ParameterRule] = [
        "taskId": ParameterRule(Slugid.pattern), "taskGroupId": ParameterRule(Slugid.pattern),
        "runId": "^[1-9]*[0-9]+$",
        "taskQueueId": ParameterRule(Patterns.taskQueueID.regularExpression),
        "provisionerId": "^[a-zA-Z0-9-_]{1,38}$", "workerType": "^[a-zA-Z0-9-_]{1,38}$",
        "workerGroup": "^[a-zA-Z0-9-_]{1,38}$", "workerId": "^[a-zA-Z0-9-_]{1,38}$", "name": "^[\\x20-\\x7e]+$",
    ]

    /// Declares an endpoint whose problems become API errors.
    func endpoint(
        _ method: HTTPMethodName,
        _ route: String,
        _ name: String,
        scopes: ScopeTemplate,
        mode: Endpoint.Mode = .automatic,
        query: [String: QueryRule] = [:],
        input: String? = nil,
        output: String? = nil,
        stability: Stability = .stable,
        category: String,
        _ title: String,
        _ handler: @escaping @Sendable (APIRequest) async throws -> APIResponse
    ) -> Endpoint {
        .answering(
            method,
            route,
            name,
            scopes: scopes,
            mode: mode,
            query: query,
            parameters: Self.taskParameters,
            input: input,
            output: output,
            category: category,
            stability: stability,
            title,
            handler
        )
    }
}

extension QueueAPI {
    /// Credentials of a name and with scopes of their own, signed by the deployment itself.
    func credentials(
        _ name: String,
        scopes: [String],
        until expiry: Timestamp
    ) throws(APIError) -> JSONValue {
        guard let issuer = directory.issuer else {
            throw APIError(.internalServerError, "The queue is still starting.")
        }
        let credentials = TemporaryCredentials.issue(
            named: name,
            by: issuer,
            scopes: scopes,
            start: now(),
            expiry: expiry
        )
        return [
            "clientId": JSONValue(credentials.clientID), "accessToken": JSONValue(credentials.accessToken),
            "certificate": JSONValue(credentials.certificate ?? ""),
        ]
    }
}

/// Runs a handler and turns what the rules refuse into what clients understand.
func answering(
    _ handler: @Sendable (APIRequest) async throws -> APIResponse,
    _ request: APIRequest
) async throws -> APIResponse {
    do {
        try request.checkStorable()
        return try await handler(request)
    } catch let problem as QueueProblem {
        let code: APIErrorCode =
            switch problem.code {
            case .input: .inputError
            case .notFound: .resourceNotFound
            case .conflict: .requestConflict
            case .expired: .resourceExpired
            case .unacceptable: .custom("NoMatchingMethod", 406)
            case .denylisted: .custom("DenylistedAddress", 400)
            }
        throw APIError(code, problem.description)
    }
}

extension APIRequest {
    /// Refuses the one character that no text in PostgreSQL can hold.
    func checkStorable() throws(QueueProblem) {
        let problem = QueueProblem(.input, "The character U+0000 cannot be stored.")
        guard !query.values.contains(where: { $0.contains("\0") }) else { throw problem }
        // In JSON it is always written as an escape, so most bodies need no closer look.
        guard mayHoldNull, body.containsNull else { return }
        throw problem
    }

    private var mayHoldNull: Bool {
        var rest = rawBody[...]
        while let escape = rest.firstIndex(of: UInt8(ascii: "\\")) {
            rest = rest[escape...]
            if rest.starts(with: Self.escapedNull) { return true }
            rest = rest.dropFirst()
        }
        return false
    }

    private static let escapedNull = Array("\\u0000".utf8)

    /// The run that the route names.
    var runID: Int { Int(parameter("runId")) ?? Int.max }
}

/// JSON text put together from parts that are JSON text already.
struct SplicedJSON {
    private(set) var bytes: [UInt8] = []

    mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }
    mutating func append(json text: [UInt8]) { bytes.append(contentsOf: text) }
    mutating func append(_ value: JSONValue) { bytes.append(contentsOf: value.bytes()) }

    /// `{"status": …, "task": …}` as listings show tasks, with the definition as it was stored.
    mutating func append(_ listing: TaskListing) {
        append("{\"status\":")
        append(listing.status.json)
        append(",\"task\":")
        append(listing.definition)
        append("}")
    }

    /// The members of a list, separated by commas.
    mutating func append<Element>(list: some Sequence<Element>, _ one: (inout SplicedJSON, Element) -> Void) {
        var isFirst = true
        append("[")
        for element in list {
            if !isFirst { append(",") }
            isFirst = false
            one(&self, element)
        }
        append("]")
    }
}

extension JSONValue {
    /// Whether any string or key in it holds the character U+0000.
    var containsNull: Bool {
        switch self {
        case .null, .bool, .number: false
        case .string(let text): text.utf8.contains(0)
        case .array(let elements): elements.contains { $0.containsNull }
        case .object(let object): object.contains { $0.key.utf8.contains(0) || $0.value.containsNull }
        }
    }
}
