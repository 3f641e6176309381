// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import JSON
import Schedules
import Synchronization
import Taskcluster

/// One kept-alive HTTP connection that sends prepared bytes and reads answers: as little work as a client can do, so
/// that the server is what is measured.
///
/// It belongs to one thread.
final class LoadConnection {
    private let descriptor: Int32
    private var buffer: [UInt8] = []

    init(host: String, port: Int) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port)).bigEndian
        guard inet_pton(AF_INET, host, &address.sin_addr) == 1 else {
            throw BenchmarkError("the services must listen on an IPv4 address, not \(host)")
        }
        let size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, size) }
        }
        guard status == 0 else { throw BenchmarkError("cannot connect to \(host):\(port), error \(errno)") }
        var yes: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<Int32>.size))
    }

    deinit { close(descriptor) }

    /// Sends a request and reads the whole answer.
    func send(_ request: [UInt8]) throws -> (status: Int, body: [UInt8]) {
        try write(request)
        return try answer()
    }

    /// Sends a request whose answer nobody may ever read.
    func write(_ request: [UInt8]) throws {
        var sent = 0
        while sent < request.count {
            let count = request[sent...].withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            guard count > 0 else { throw BenchmarkError("the connection broke while sending") }
            sent += count
        }
    }

    private func answer() throws -> (status: Int, body: [UInt8]) {
        buffer.removeAll(keepingCapacity: true)
        var end: Int?
        while end == nil {
            try receive()
            end = headEnd()
        }
        let start = end ?? 0
        let head = String(decoding: buffer[..<start], as: UTF8.self)
        guard let status = head.split(separator: " ", maxSplits: 2).dropFirst().first.flatMap({ Int($0) }) else {
            throw BenchmarkError("no HTTP answer: \(head)")
        }
        let length = head.split(separator: "\r\n").lazy.map { $0.lowercased() }
            .first { $0.hasPrefix("content-length:") }
            .flatMap { Int($0.dropFirst("content-length:".count).drop { $0 == " " }) }
        let total = start + (length ?? 0)
        while buffer.count < total { try receive() }
        return (status, Array(buffer[start..<total]))
    }

    private func headEnd() -> Int? {
        guard buffer.count >= 4 else { return nil }
        for index in 3..<buffer.count
        where buffer[index] == 10 && buffer[index - 1] == 13 && buffer[index - 2] == 10 && buffer[index - 3] == 13 {
            return index + 1
        }
        return nil
    }

    private func receive() throws {
        let count = withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 16) { chunk in
            let count = read(descriptor, chunk.baseAddress, chunk.count)
            if count > 0 { buffer.append(contentsOf: chunk[..<count]) }
            return count
        }
        guard count > 0 else { throw BenchmarkError("the connection broke while receiving") }
    }
}

/// Where the suite listens and how its requests are signed, from the environment that `make up` writes.
struct LoadTarget: Sendable {
    let host: String
    let port: Int
    private let credentials: Hawk.Credentials

    /// Addresses the service whose base URL is in a variable.
    init(_ variable: String) throws {
        let url = try environment(variable)
        guard let target = HawkTarget(url: url + "/") else { throw BenchmarkError("\(variable) is no URL: \(url)") }
        host = target.host
        port = target.port
        credentials = Hawk.Credentials(
            clientID: try environment("TASKCLUSTER_CLIENT_ID"),
            accessToken: try environment("TASKCLUSTER_ACCESS_TOKEN")
        )
    }

    func connection() throws -> LoadConnection {
        try LoadConnection(host: host, port: port)
    }

    /// The bytes of a signed request.
    func request(_ method: String, _ path: String, _ body: JSONValue) -> [UInt8] {
        let body = body.bytes()
        let authorization = Hawk.authorization(
            for: method,
            url: HawkTarget(host: host, port: port, resource: path),
            credentials: credentials,
            authorizedScopes: nil,
            payload: (contentType: "application/json", body: body),
            now: .now(),
            nonce: Hawk.makeNonce()
        )
        let head = """
            \(method) \(path) HTTP/1.1\r
            Host: \(host):\(port)\r
            Authorization: \(authorization)\r
            Content-Type: application/json\r
            Content-Length: \(body.count)\r
            \r

            """
        return Array(head.utf8) + body
    }
}

/// The value of an environment variable that must be there.
func environment(_ name: String) throws -> String {
    guard let value = getenv(name).map({ String(cString: $0) }), !value.isEmpty else {
        throw BenchmarkError("\(name) is not set: source .local/env")
    }
    return value
}

/// Runs a body on so many threads of their own and returns what they return; the first error wins.
func onThreads<Output: Sendable>(
    _ count: Int,
    _ body: @escaping @Sendable (Int) throws -> Output
) async throws -> [Output] {
    try await withThrowingTaskGroup(of: Output.self) { group in
        for index in 0..<count {
            group.addTask {
                try await withCheckedThrowingContinuation { continuation in
                    startThread(named: "load-\(index)") {
                        continuation.resume(with: Result { try body(index) })
                    }
                }
            }
        }
        var outputs: [Output] = []
        for try await output in group { outputs.append(output) }
        return outputs
    }
}

/// How long each of many things took.
struct Latencies {
    private let sorted: [Double]

    init(_ milliseconds: [Double]) {
        sorted = milliseconds.sorted()
    }

    /// The value that so many per cent stay below.
    func percentile(_ percent: Double) -> Double {
        guard !sorted.isEmpty else { return .nan }
        return sorted[min(sorted.count - 1, Int(Double(sorted.count) * percent / 100))]
    }
}

extension Duration {
    var milliseconds: Double { self / .milliseconds(1) }
}
