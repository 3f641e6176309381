// SPDX-License-Identifier: MPL-2.0

import Crypto
import Glibc
public import HTTPClient
import JSON
import WorkerKit

/// Keeps every answer in a directory, or gives the answers kept there instead of asking anybody.
public struct ArchiveTransport: HTTPTransport {
    /// Which way answers go.
    public enum Mode: Sendable, Hashable {
        /// Ask, and keep what is answered.
        case capture
        /// Ask nobody.
        case replay
    }

    private let mode: Mode
    private let directory: String
    private let transport: any HTTPTransport

    /// Creates the directory when capturing.
    public init(_ mode: Mode, directory: String, transport: any HTTPTransport) throws {
        self.mode = mode
        self.directory = directory
        self.transport = transport
        if mode == .capture { try TaskDirectories.make(directory) }
    }

    /// The kept or the fresh answer.
    public func send(_ request: HTTPRequest) async throws(HTTPClientError) -> HTTPResponse {
        let place = "\(directory)/\(key(request))"
        switch mode {
        case .capture:
            let response = try await transport.send(request)
            do {
                try keep(response, request, at: place)
            } catch {
                throw HTTPClientError(.file, "cannot keep an answer: \(error)")
            }
            return response
        case .replay:
            do {
                return try kept(request, at: place)
            } catch {
                throw HTTPClientError(.other, "nothing is kept for \(request.method) \(URLMask.masked(request.url))")
            }
        }
    }

    /// The same for requests that differ only in what gives access.
    private func key(_ request: HTTPRequest) -> String {
        var url = request.url
        if let cut = url.firstRange(of: "bewit=") { url = String(url[..<cut.lowerBound]) }
        var text = "\(request.method) \(url)"
        if case .bytes(let bytes) = request.body { text += String(decoding: bytes, as: UTF8.self) }
        let digest = SHA256.hash(data: Array(text.utf8))
        return digest.prefix(16).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    private func keep(_ response: HTTPResponse, _ request: HTTPRequest, at place: String) throws {
        var headers = JSONObject()
        for name in ["Content-Type", "Content-Encoding", "Location", "Retry-After"] {
            headers[name] = response.headers[name].map { .string($0) }
        }
        let head: JSONValue = [
            "url": .string(URLMask.masked(request.url)), "status": .init(response.status), "headers": .object(headers),
        ]
        try FileText.write(head.bytes(.pretty), to: "\(place).json")
        if let path = Self.file(of: request.sink), response.status == 200, response.body.isEmpty,
            access(path, F_OK) == 0
        {
            try Self.copy(path, to: "\(place).body")
        } else {
            try FileText.write(response.body, to: "\(place).body")
        }
    }

    private func kept(_ request: HTTPRequest, at place: String) throws -> HTTPResponse {
        let head = try JSONValue(parsing: FileText.bytes("\(place).json"))
        var headers = HTTPHeaders()
        for (name, value) in head["headers"]?.object ?? [:] { headers[name] = value.string }
        let status = head["status"]?.int ?? 0
        if let path = Self.file(of: request.sink), status == 200 {
            try Self.copy("\(place).body", to: path)
            if let witness = request.onFile?(0) { try OpenFile.reading(path).forEachPiece { witness($0) } }
            return HTTPResponse(status: status, headers: headers)
        }
        return HTTPResponse(status: status, headers: headers, body: try FileText.bytes("\(place).body"))
    }

    private static func file(of sink: HTTPRequest.Sink) -> String? {
        switch sink {
        case .file(let path), .spool(let path, _, _): path
        case .memory: nil
        }
    }

    private static func copy(_ source: String, to target: String) throws {
        let descriptor = open(target, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o644)
        guard descriptor >= 0 else { throw FileError("cannot create \(target)", errno) }
        let file = OpenFile(adopting: descriptor)
        try OpenFile.reading(source).forEachPiece { try file.write($0) }
    }
}
