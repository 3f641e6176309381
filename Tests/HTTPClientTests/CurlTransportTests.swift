// SPDX-License-Identifier: MPL-2.0

import Core
import Glibc
import HTTPClient
import JSON
import Synchronization
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(5)))
struct CurlTransportTests {
    let transport = CurlTransport()

    @Test func `a GET sends the path as it is and nothing but what was asked for`() async throws {
        let server = TestServer { _ in ok(#"{"a":1}"#, "X-One: 1\r\nx-one: 2\r\n") }
        defer { server.close() }
        var request = HTTPRequest(url: server.url("/a/../b%2Fc//d?x=1"), headers: ["X-Empty": "", "X-Some": "v"])
        request.proxy = ""
        let response = try await transport.send(request)
        #expect(response.status == 200)
        #expect(try response.json() == ["a": 1])
        #expect(response.headers["X-ONE"] == "1")
        #expect(response.headers.values("X-One") == ["1", "2"])
        let head = try #require(server.requests.first).head
        #expect(head.hasPrefix("GET /a/../b%2Fc//d?x=1 HTTP/1.1\r\n"))
        #expect(head.contains("\r\nX-Empty:"))
        #expect(head.contains("\r\nX-Some: v"))
        #expect(!head.lowercased().contains("accept-encoding"))
    }

    @Test(arguments: ["POST", "PUT", "PATCH", "DELETE"])
    func `a body is sent at once with its length`(_ method: String) async throws {
        let server = TestServer { _ in ok("") }
        defer { server.close() }
        let body = [UInt8](repeating: 7, count: 300_000)
        let request = HTTPRequest(method: method, url: server.url("/"), body: .bytes(body))
        #expect(try await transport.send(request).status == 200)
        let seen = try #require(server.requests.first)
        #expect(seen.line == "\(method) / HTTP/1.1")
        #expect(seen.body == body)
        #expect(!seen.head.lowercased().contains("expect"))
        #expect(!seen.head.lowercased().contains("transfer-encoding"))
        #expect(!seen.head.lowercased().contains("content-type"))
    }

    @Test(arguments: [("POST", true), ("PUT", true), ("DELETE", false), ("HEAD", false), ("OPTIONS", false)])
    func `without a body only methods that expect one say that it is empty`(_ method: String, _ says: Bool) async throws
    {
        let server = TestServer { _ in .answer("HTTP/1.1 204 No Content\r\n\r\n") }
        defer { server.close() }
        let response = try await transport.send(HTTPRequest(method: method, url: server.url("/")))
        #expect(response.status == 204)
        let seen = try #require(server.requests.first)
        #expect(seen.line == "\(method) / HTTP/1.1")
        #expect(seen.head.lowercased().contains("content-length: 0") == says)
    }

    @Test func `connections are used again`() async throws {
        let server = TestServer { _ in ok("x") }
        defer { server.close() }
        for _ in 0..<20 { _ = try await transport.send(HTTPRequest(url: server.url("/"))) }
        #expect(server.requests.count == 20)
        #expect(server.connections == 1)
    }

    @Test func `many transfers share the one thread`() async throws {
        let server = TestServer { _ in ok("x") }
        defer { server.close() }
        let good = try await withThrowingTaskGroup(of: Int.self) { group in
            for index in 0..<50 {
                group.addTask { try await transport.send(HTTPRequest(url: server.url("/\(index)"))).status }
            }
            return try await group.reduce(0) { $0 + ($1 == 200 ? 1 : 0) }
        }
        #expect(good == 50)
    }

    @Test func `a request on a connection that died meanwhile is sent again, body and all`() async throws {
        let server = TestServer { $0.body == [1] ? .hangUp("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") : ok("y") }
        defer { server.close() }
        _ = try await transport.send(HTTPRequest(method: "PUT", url: server.url("/"), body: .bytes([1])))
        let second = try await transport.send(HTTPRequest(method: "PUT", url: server.url("/"), body: .bytes([2, 3])))
        #expect(second.body == Array("y".utf8))
    }

    @Test func `files are streamed both ways`() async throws {
        let server = TestServer { $0.line.hasPrefix("PUT") ? ok("") : .stream(3 << 20) }
        defer { server.close() }
        let path = temporaryPath()
        defer { unlink(path) }
        var download = HTTPRequest(url: server.url("/"))
        download.sink = .file(path: path)
        let response = try await transport.send(download)
        #expect(response.body.isEmpty)
        let upload = HTTPRequest(method: "PUT", url: server.url("/"), body: .file(path: path))
        #expect(try await transport.send(upload).status == 200)
        #expect(server.requests.last?.body.count == 3 << 20)
    }

    @Test func `a file sink stays away from the bodies of errors and makes empty files`() async throws {
        let server = TestServer {
            $0.line.contains("/empty") ? ok("") : .answer("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone")
        }
        defer { server.close() }
        let path = temporaryPath()
        defer { unlink(path) }
        var request = HTTPRequest(url: server.url("/"))
        request.sink = .file(path: path)
        #expect(try await transport.send(request).body == Array("gone".utf8))
        #expect(access(path, F_OK) != 0)
        request.url = server.url("/empty")
        _ = try await transport.send(request)
        #expect(access(path, F_OK) == 0)
    }

    @Test func `a small body stays in memory and a big one goes to a file that survives a failure`() async throws {
        let half = String(repeating: "a", count: 400_000)
        let server = TestServer { request in
            if request.line.contains("/small") { return ok("small") }
            if request.head.contains("Range: bytes=400000-") {
                let head = "HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n"
                return .answer(head + "Content-Range: bytes 400000-400003/400004\r\n\r\nrest")
            }
            return .hangUp("HTTP/1.1 200 OK\r\nContent-Length: 400004\r\nETag: \"x\"\r\n\r\n" + half)
        }
        defer { server.close() }
        let path = temporaryPath()
        defer { unlink(path) }
        let heads = Mutex<[Int]>([])
        var request = HTTPRequest(url: server.url("/small"))
        request.sink = .spool(path: path, memory: 1000, offset: 0)
        request.onHead = { head in
            heads.withLock { $0.append(head.status) }
            return nil
        }
        #expect(try await transport.send(request).body == Array("small".utf8))
        #expect(access(path, F_OK) != 0)
        request.url = server.url("/big")
        await #expect(throws: HTTPClientError.self) { try await transport.send(request) }
        request.headers["Range"] = "bytes=400000-"
        request.sink = .spool(path: path, memory: 1000, offset: 400_000)
        #expect(try await transport.send(request).status == 206)
        var info = stat()
        #expect(stat(path, &info) == 0 && info.st_size == 400_004)
        #expect(heads.withLock { $0 } == [200, 200, 206])
    }

    @Test func `a witness of a file sees every byte in order, holds up nobody else, and is heard out`() async throws {
        let big = String((0..<3_000_000).map { Character(Unicode.Scalar(UInt8(97 + $0 % 23))) })
        let server = TestServer { ok($0.line.contains("/big") ? big : "small") }
        defer { server.close() }
        let path = temporaryPath()
        defer { unlink(path) }
        let seen = Mutex<(first: Int, bytes: [UInt8])>((-1, []))
        var request = HTTPRequest(url: server.url("/big"))
        request.sink = .spool(path: path, memory: 1000, offset: 0)
        request.onFile = { offset in
            #expect(offset == 0)
            return { bytes in
                let isFirst = seen.withLock { seen in
                    defer { seen.bytes += bytes }
                    guard seen.first < 0 else { return false }
                    seen.first = bytes.count
                    return true
                }
                // By then every block is lent, so the transfer stands still.
                if isFirst { usleep(200_000) }
            }
        }
        let address = server.url("/small")
        async let small = transport.send(HTTPRequest(url: address))
        let response = try await transport.send(request)
        #expect((response.status, response.body.count) == (200, 0))
        #expect(seen.withLock { $0.bytes } == Array(big.utf8))
        #expect(try await small.body == Array("small".utf8))
        #expect(seen.withLock { $0.first } == 0)
        var info = stat()
        #expect(stat(path, &info) == 0 && info.st_size == big.utf8.count)
    }

    @Test func `a witness that is still busy does not keep a cancelled transfer`() async throws {
        let server = TestServer { _ in .stream(64 << 20) }
        defer { server.close() }
        let path = temporaryPath()
        defer { unlink(path) }
        let began = Signal()
        var request = HTTPRequest(url: server.url("/"))
        request.sink = .file(path: path)
        request.onFile = { _ in
            { bytes in
                guard !bytes.isEmpty else { return }
                began.notify()
                usleep(50_000)
            }
        }
        let sending = Task { [transport, request] in try await transport.send(request) }
        #expect(await began.wait(timeout: .seconds(90)))
        sending.cancel()
        await #expect(throws: HTTPClientError.self) { try await sending.value }
        #expect(access(path, F_OK) != 0)
    }

    @Test func `whoever sees the head may refuse the body`() async throws {
        let server = TestServer { _ in .stream(1 << 20) }
        defer { server.close() }
        var request = HTTPRequest(url: server.url("/"))
        request.onHead = { _ in HTTPClientError(.file, "too long") }
        await #expect(throws: HTTPClientError(.file, "too long")) { try await transport.send(request) }
    }

    @Test func `answers that lead round in circles are left after as many rounds as allowed`() async throws {
        let server = TestServer { _ in .answer("HTTP/1.1 303 See Other\r\nLocation: /\r\nContent-Length: 0\r\n\r\n") }
        defer { server.close() }
        var request = HTTPRequest(url: server.url("/"))
        request.redirects = 5
        do {
            _ = try await transport.send(request)
            Issue.record("the circle has no end")
        } catch {
            #expect(error.code == .redirect)
        }
        #expect(server.requests.count == 6)
    }

    @Test func `a broken download leaves no file and may be tried again`() async throws {
        let server = TestServer { _ in .hangUp("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") }
        defer { server.close() }
        let path = temporaryPath()
        var request = HTTPRequest(url: server.url("/"))
        request.sink = .file(path: path)
        let error = await #expect(throws: HTTPClientError.self) { try await transport.send(request) }
        #expect(error?.code == .aborted)
        #expect(error?.isRetriable == true)
        #expect(access(path, F_OK) != 0)
    }

    @Test(arguments: ["GET", "PUT", "POST", "DELETE", "HEAD"])
    func `an answer that is cut anywhere is none, however much of its head has come`(_ method: String) async throws {
        let body = method == "HEAD" ? "" : "{}"
        let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 2\r\n\r\n\(body)"
        let server = TestServer { request in
            let path = request.line.split(separator: " ")[1]
            return .hangUp(String(decoding: answer.utf8.prefix(Int(path.dropFirst()) ?? 0), as: UTF8.self))
        }
        defer { server.close() }
        for length in 0..<answer.utf8.count {
            #expect(await code(HTTPRequest(method: method, url: server.url("/\(length)"))) == .aborted, "\(length)")
        }
        let whole = HTTPRequest(method: method, url: server.url("/\(answer.utf8.count)"))
        #expect(try await transport.send(whole).status == 200)
    }

    @Test func `an answer whose end nobody announced begins with a whole head at least`() async throws {
        let head = "HTTP/1.1 200 OK\r\nX-A: b\r\n"
        let server = TestServer { .hangUp($0.line.contains("/cut") ? head : head + "\r\n") }
        defer { server.close() }
        #expect(await code(HTTPRequest(method: "PUT", url: server.url("/cut"))) == .aborted)
        #expect(try await transport.send(HTTPRequest(method: "PUT", url: server.url("/whole"))).status == 200)
    }

    @Test func `a response longer than allowed is refused`() async throws {
        let server = TestServer { _ in .stream(1 << 20) }
        defer { server.close() }
        var request = HTTPRequest(url: server.url("/"))
        request.sink = .memory(limit: 1 << 19)
        #expect(await code(request) == .tooLarge)
        request.sink = .memory(limit: 1 << 20)
        #expect(try await transport.send(request).body.count == 1 << 20)
    }

    @Test func `limits of time and of standing still end a transfer`() async throws {
        let server = TestServer { _ in .hang("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") }
        defer { server.close() }
        #expect(await code(HTTPRequest(url: server.url("/"), timeout: .milliseconds(200))) == .timeout)
        var request = HTTPRequest(url: server.url("/"))
        request.stallTimeout = .seconds(1)
        #expect(await code(request) == .timeout)
    }

    @Test func `cancelling the task aborts the transfer at once`() async throws {
        let server = TestServer { _ in .hang("") }
        defer { server.close() }
        let request = HTTPRequest(url: server.url("/"))
        let task = Task { await code(request) }
        while server.requests.isEmpty { try await Task.sleep(for: .milliseconds(5)) }
        task.cancel()
        #expect(await task.value == .cancelled)
        let early = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return await code(request)
        }
        #expect(await early.value == .cancelled)
    }

    @Test func `after a shutdown requests fail instead of waiting`() async throws {
        let server = TestServer { _ in .hang("") }
        defer { server.close() }
        let transport = CurlTransport()
        let request = HTTPRequest(url: server.url("/"))
        let waiting = Task { try await transport.send(request) }
        while server.requests.isEmpty { try await Task.sleep(for: .milliseconds(5)) }
        transport.shutdown()
        await #expect(throws: HTTPClientError.self) { try await waiting.value }
        await #expect(throws: HTTPClientError.self) { try await transport.send(request) }
    }

    @Test func `redirects are followed only when asked, and only so many`() async throws {
        let server = TestServer {
            $0.line.contains("/end")
                ? ok("end")
                : .answer("HTTP/1.1 303 See Other\r\nLocation: /end\r\nX-Old: 1\r\nContent-Length: 0\r\n\r\n")
        }
        defer { server.close() }
        var request = HTTPRequest(url: server.url("/start"))
        #expect(try await transport.send(request).status == 303)
        request.redirects = 1
        let response = try await transport.send(request)
        #expect(response.body == Array("end".utf8))
        #expect(response.headers["X-Old"] == nil)
    }

    @Test func `a redirect to a local file is not followed`() async throws {
        let server = TestServer { _ in
            .answer("HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\nContent-Length: 0\r\n\r\n")
        }
        defer { server.close() }
        var request = HTTPRequest(url: server.url("/"))
        request.redirects = 3
        await #expect(throws: HTTPClientError.self) { try await transport.send(request) }
    }

    @Test func `a unix socket takes the place of the host`() async throws {
        let path = temporaryPath()
        let server = TestServer(unixSocket: path) { _ in ok("docker") }
        defer {
            server.close()
            unlink(path)
        }
        var request = HTTPRequest(url: "http://localhost/version")
        request.unixSocket = path
        #expect(try await transport.send(request).body == Array("docker".utf8))
    }

    @Test func `a proxy gets the whole URL`() async throws {
        let server = TestServer { _ in ok("proxied") }
        defer { server.close() }
        var request = HTTPRequest(url: "http://somewhere.test/x")
        request.proxy = server.url("")
        #expect(try await transport.send(request).body == Array("proxied".utf8))
        #expect(server.requests.first?.line == "GET http://somewhere.test/x HTTP/1.1")
    }

    @Test(
        arguments: [
            ("ftp://localhost/", .invalidURL), ("http://a b/", .invalidURL), ("nonsense://x", .invalidURL),
            ("http://127.0.0.1:1/", .connect),
        ] as [(String, HTTPClientError.Code)]
    )
    func `what cannot be reached fails by kind`(_ url: String, _ expected: HTTPClientError.Code) async {
        #expect(await code(HTTPRequest(url: url)) == expected)
    }

    @Test func `headers cannot smuggle lines`() async {
        #expect(await code(HTTPRequest(url: "http://127.0.0.1:1/", headers: ["X": "a\r\nY: b"])) == .invalidURL)
    }

    @Test func `a missing file is named`() async {
        let request = HTTPRequest(method: "PUT", url: "http://127.0.0.1:1/", body: .file(path: "/nonexistent/file"))
        let error = await #expect(throws: HTTPClientError.self) { try await transport.send(request) }
        #expect(error?.description == "cannot read /nonexistent/file: No such file or directory")
    }

    /// The kind of failure of a request; nil when there is none.
    private func code(_ request: HTTPRequest) async -> HTTPClientError.Code? {
        do throws(HTTPClientError) {
            _ = try await transport.send(request)
            return nil
        } catch {
            return error.code
        }
    }
}
