// SPDX-License-Identifier: MPL-2.0

import CLinux
import Core
import Glibc
import HTTPClient
import JSON
import WorkerKit

/// Answers monitors over HTTP: how the worker is, and nothing else.
///
/// A thread of its own accepts and reads; answers are made one after another where checks may wait for the queue. There is no control over
/// the worker, no secret in any answer, and a client that dawdles is dropped after two seconds.
final class StatusServer: Sendable {
    private struct Request: Sendable {
        let connection: OpenFile
        let path: String
        let query: [String: String]
    }

    /// The port it listens on.
    let port: Int
    private let configuration: ScriptworkerConfiguration
    private let transport: any HTTPTransport
    private let socket: OpenFile
    private let requests: AsyncStream<Request>
    private let arrivals: AsyncStream<Request>.Continuation

    /// Listens on `address:port`; port 0 is any.
    init(_ place: String, configuration: ScriptworkerConfiguration, transport: any HTTPTransport) throws {
        guard let (address, port) = Self.parts(place) else {
            throw FileError("status_listen must be address:port, not \(place)", EINVAL)
        }
        let descriptor = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw FileError("cannot make a socket", errno) }
        socket = OpenFile(adopting: descriptor)
        var yes: Int32 = 1
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, 4)
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_port = port.bigEndian
        guard inet_pton(AF_INET, address, &name.sin_addr) == 1 else {
            throw FileError("status_listen: \(address) is not an address", EINVAL)
        }
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let isBound = withUnsafeMutablePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bind(descriptor, pointer, length) == 0 && listen(descriptor, 16) == 0
                    && getsockname(descriptor, pointer, &length) == 0
            }
        }
        guard isBound else { throw FileError("cannot listen on \(place)", errno) }
        self.port = Int(UInt16(bigEndian: name.sin_port))
        self.configuration = configuration
        self.transport = transport
        (requests, arrivals) = AsyncStream.makeStream(bufferingPolicy: .bufferingOldest(16))
    }

    static func parts(_ place: String) -> (String, UInt16)? {
        guard let colon = place.lastIndex(of: ":"), let port = UInt16(place[place.index(after: colon)...]) else {
            return nil
        }
        return (String(place[..<colon]), port)
    }

    /// Serves until the task is cancelled.
    func run() async {
        startThread(named: "status") { [socket, arrivals] in Self.accept(socket, arrivals) }
        await withTaskCancellationHandler {
            for await request in requests {
                let response = await response(to: request)
                Self.send(response, to: request.connection)
            }
        } onCancel: {
            // Wakes the accepting thread, which then ends the stream.
            Glibc.shutdown(socket.descriptor, Int32(SHUT_RDWR))
        }
    }

    // MARK: - Connections

    private static func accept(_ socket: OpenFile, _ arrivals: AsyncStream<Request>.Continuation) {
        while true {
            let descriptor = Glibc.accept(socket.descriptor, nil, nil)
            guard descriptor >= 0 else {
                if errno == EINTR || errno == ECONNABORTED || errno == EMFILE { continue }
                return arrivals.finish()
            }
            let connection = OpenFile(adopting: descriptor)
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            var limit = timeval(tv_sec: 2, tv_usec: 0)
            for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
                setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
            }
            if let request = read(connection) { arrivals.yield(request) }
        }
    }

    private static func read(_ connection: OpenFile) -> Request? {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while bytes.count < 16384 {
            let count = Glibc.read(connection.descriptor, &buffer, buffer.count)
            guard count > 0 else { return nil }
            bytes += buffer[..<count]
            let text = String(decoding: bytes, as: UTF8.self)
            guard text.contains("\r\n\r\n") || text.contains("\n\n") else { continue }
            let words = text.prefix { !$0.isNewline }.split(separator: " ")
            guard words.count == 3, words[0] == "GET" || words[0] == "HEAD" else {
                return Request(connection: connection, path: "", query: [:])
            }
            let parts = words[1].split(separator: "?", maxSplits: 1)
            var query: [String: String] = [:]
            for pair in (parts.count > 1 ? parts[1] : "").split(separator: "&") {
                let sides = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                query[PercentText.decoded(String(sides[0]))] =
                    sides.count > 1 ? PercentText.decoded(String(sides[1])) : ""
            }
            return Request(connection: connection, path: parts.first.map(String.init) ?? "/", query: query)
        }
        return nil
    }

    // MARK: - Answers

    private struct Response {
        var status = 200
        var type = "application/json"
        var headers = ""
        var body: String
    }

    private static func send(_ response: Response, to connection: OpenFile) {
        let words = [200: "OK", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"]
        let head =
            "HTTP/1.1 \(response.status) \(words[response.status] ?? "Answer")\r\nContent-Type: \(response.type)\r\n"
            + "Content-Length: \(response.body.utf8.count)\r\nConnection: close\r\n\(response.headers)\r\n"
        // A client that has left needs no answer.
        try? Array((head + response.body).utf8).withUnsafeBytes { try connection.write($0) }
    }

    private func response(to request: Request) async -> Response {
        switch request.path {
        case "/__lbheartbeat__": Response(body: "{}")
        case "/__version__":
            Response(body: (["version": .string(Release.version), "source": "slipway"] as JSONValue).text())
        case "/__heartbeat__": await heartbeat()
        case "/check": await check(request.query)
        case "/metrics": metrics()
        default: Response(status: 404, body: "{}")
        }
    }

    private var checks: MonitorChecks {
        MonitorChecks(configuration: configuration, configurationPath: configuration.path, transport: transport)
    }

    private var beat: JSONValue {
        (try? JSONValue(parsing: FileText.bytes(configuration.heartbeatPath))) ?? [:]
    }

    private func heartbeat() async -> Response {
        var answer = beat
        var states = JSONObject()
        var isBroken = false
        for name in ["log", "heartbeat", "claim", "disk", "config", "key"] {
            let result = await checks.check(name, MonitorChecks.Options())
            states[name] = ["state": .string(result.state.word), "text": .string(result.text)]
            if result.state == .critical, name != "disk" || configuration.file.whole("min_free_disk_bytes") > 0 {
                isBroken = true
            }
        }
        answer["checks"] = .object(states)
        return Response(status: isBroken ? 500 : 200, body: answer.text())
    }

    private func check(_ query: [String: String]) async -> Response {
        var options = MonitorChecks.Options()
        options.warning = query["w"]
        options.critical = query["c"]
        let result = await MonitorChecks.result(
            query["name"] ?? "all",
            configurationPath: configuration.path,
            options: options,
            transport: transport
        )
        let isWell = result.state == .ok || result.state == .warning
        return Response(
            status: isWell ? 200 : 503,
            type: "text/plain; charset=utf-8",
            headers: "X-Check-Exit: \(result.state.rawValue)\r\n",
            body: result.output + "\n"
        )
    }

    private func metrics() -> Response {
        let beat = beat
        var lines: [String] = []
        func add(_ name: String, _ kind: String, _ help: String, _ samples: [(labels: String, value: Int)]) {
            lines += ["# HELP scriptworker_\(name) \(help)", "# TYPE scriptworker_\(name) \(kind)"]
            lines += samples.map { "scriptworker_\(name)\($0.labels) \($0.value)" }
        }
        let resolved = ["completed", "failed", "exception"].map { state in
            (labels: "{state=\"\(state)\"}", value: beat["tasksResolved"]?[state]?.int ?? 0)
        }
        add("tasks_resolved_total", "counter", "Tasks resolved since the start.", resolved)
        let errors = beat["consecutiveClaimErrors"]?.int ?? 0
        add("claim_errors", "gauge", "Failed claims in a row.", [("", errors)])
        add("running", "gauge", "Whether a task is at hand.", [("", beat["taskId"]?.string == nil ? 0 : 1)])
        add("free_disk_bytes", "gauge", "Free where the least is.", [("", beat["freeDiskBytes"]?.int ?? 0)])
        add(
            "clock_offset_seconds",
            "gauge",
            "How far this host is behind the queue.",
            [("", beat["clockOffset"]?.int ?? 0)]
        )
        let left = beat["leftoverProcesses"]?.bool == true ? 1 : 0
        add("leftover_processes", "gauge", "Whether processes of a script could not be ended.", [("", left)])
        return Response(type: "text/plain; version=0.0.4", body: lines.joined(separator: "\n") + "\n")
    }
}
