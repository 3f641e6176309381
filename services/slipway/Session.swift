// SPDX-License-Identifier: MPL-2.0

import ArgumentParser
import Glibc
import HTTPClient
import JSON
import Taskcluster
import TaskclusterClient

/// What every command that talks to a deployment takes.
struct OutputOptions: ParsableArguments {
    @Flag(help: "Print JSON instead of text.")
    var json = false

    /// Prints one of two forms of the same answer.
    func print(_ value: JSONValue, text: @autoclosure () -> String) {
        Swift.print(json ? value.text(.pretty) : text())
    }
}

/// The deployment the environment names.
struct Session {
    let client: TaskclusterClient
    let transport: CurlTransport

    init() throws {
        guard let rootURL = Self.variable("TASKCLUSTER_ROOT_URL") else {
            throw Failure(
                usage: "TASKCLUSTER_ROOT_URL is not set; export it, or source the env file that make up writes"
            )
        }
        guard HawkTarget(url: rootURL) != nil else {
            throw Failure(usage: "TASKCLUSTER_ROOT_URL must begin with http:// or https://")
        }
        let credentials = try Self.credentials()
        transport = CurlTransport()
        client = TaskclusterClient(rootURL: rootURL, credentials: { credentials }, transport: transport)
    }

    private static func credentials() throws -> Hawk.Credentials? {
        let token = variable("TASKCLUSTER_ACCESS_TOKEN")
        guard let clientID = variable("TASKCLUSTER_CLIENT_ID") else {
            if token == nil { return nil }
            throw Failure(
                usage: "TASKCLUSTER_ACCESS_TOKEN is set, TASKCLUSTER_CLIENT_ID is not; export both or neither"
            )
        }
        guard let token else {
            throw Failure(
                usage: "TASKCLUSTER_CLIENT_ID is set, TASKCLUSTER_ACCESS_TOKEN is not; export both or neither"
            )
        }
        return Hawk.Credentials(
            clientID: clientID,
            accessToken: token,
            certificate: variable("TASKCLUSTER_CERTIFICATE")
        )
    }

    /// A variable of the environment; an empty one counts as absent.
    private static func variable(_ name: String) -> String? {
        guard let value = getenv(name), value[0] != 0 else { return nil }
        return String(cString: value)
    }
}

/// Bytes in and out: input that people name on the command line, output too large for `print`.
enum Bytes {
    /// The JSON in a file, or on standard input for `-`.
    static func json(_ path: String) throws -> JSONValue {
        let bytes = try contents(path)
        do {
            return try JSONValue(parsing: bytes)
        } catch {
            throw Failure(usage: "\(path) is not JSON: \(error)")
        }
    }

    /// The bytes of a file, or of standard input for `-`.
    static func contents(_ path: String) throws -> [UInt8] {
        let descriptor = path == "-" ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Failure(usage: "cannot read \(path): \(String(cString: strerror(errno)))") }
        defer { if path != "-" { close(descriptor) } }
        var result: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            guard count >= 0 else { throw Failure(usage: "cannot read \(path): \(String(cString: strerror(errno)))") }
            if count == 0 { break }
            result += buffer[..<count]
        }
        return result
    }

    /// Writes bytes to standard output as they are.
    static func write(_ bytes: [UInt8]) throws {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            guard count > 0 else { throw Failure("cannot write the output: \(String(cString: strerror(errno)))") }
            rest = rest.dropFirst(count)
        }
    }
}
