// SPDX-License-Identifier: MPL-2.0

import CCurl
import Core
import Glibc

/// One request on its way, with the files and lists libcurl borrows until it is over.
///
/// SAFETY: after the initialiser only the loop's thread touches a transfer; the completion is called once.
final class Transfer: @unchecked Sendable {
    let id: UInt64
    let token: CancellationToken
    private let request: HTTPRequest
    private let envelope: MailEnvelope?
    private let completion: @Sendable (Result<HTTPResponse, HTTPClientError>) -> Void

    private var easy: UnsafeMutableRawPointer?
    private var list: UnsafeMutablePointer<curl_slist>?
    private var source: Int32 = -1
    private var position = 0
    private var sink: Int32 = -1
    private var status = 0
    private var headers = HTTPHeaders()
    private var received: [UInt8] = []
    private var failure: HTTPClientError?
    private var isHeadTold = false
    /// Whether the blank line after the last header lines has come; libcurl takes a head that is cut for a whole one.
    private var isHeadComplete = false
    /// Collects what goes into a file, since libcurl hands out 16 KiB at a time.
    private var block: BodyWitness.Block?
    private var witness: BodyWitness?
    private let resume: @Sendable () -> Void
    /// Room for a file's pieces; libcurl hands out and takes at most 16 KiB at once otherwise.
    private static let fileBuffer = 256 << 10

    init(
        id: UInt64,
        request: HTTPRequest,
        envelope: MailEnvelope? = nil,
        token: CancellationToken,
        resume: @escaping @Sendable () -> Void = {},
        completion: @escaping @Sendable (Result<HTTPResponse, HTTPClientError>) -> Void
    ) {
        self.id = id
        self.request = request
        self.envelope = envelope
        self.token = token
        self.resume = resume
        self.completion = completion
    }

    deinit {
        closeFiles()
        curl_slist_free_all(list)
    }

    func complete(_ result: Result<HTTPResponse, HTTPClientError>) {
        guard let witness, case .success = result else { return completion(result) }
        witness.finish { [completion] in completion(result) }
    }

    /// Lets a paused transfer go on.
    func goOn() {
        guard let easy else { return }
        curl_easy_pause(easy, CURLPAUSE_CONT)
    }

    func fail(_ error: HTTPClientError) {
        discardSink()
        completion(.failure(error))
    }

    /// Gives the handle back; what libcurl borrowed may be freed afterwards.
    func detach() -> UnsafeMutableRawPointer? {
        defer { easy = nil }
        return easy
    }

    // MARK: - Preparing

    func prepare(_ easy: UnsafeMutableRawPointer) throws(HTTPClientError) {
        guard request.url.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f }) else {
            throw HTTPClientError(.invalidURL, "the URL contains blanks or control characters")
        }
        ccurl_set_string(easy, CURLOPT_URL, request.url)
        ccurl_set_long(easy, CURLOPT_NOSIGNAL, 1)
        ccurl_set_long(easy, CURLOPT_PATH_AS_IS, 1)
        ccurl_set_long(easy, CURLOPT_TCP_KEEPALIVE, 1)
        ccurl_set_string(easy, CURLOPT_PROTOCOLS_STR, envelope == nil ? "http,https" : "smtp,smtps")
        ccurl_set_string(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https")
        ccurl_set_string(easy, CURLOPT_USERAGENT, "slipway/\(Release.version)")
        prepareLimits(easy)
        if let socket = request.unixSocket { ccurl_set_string(easy, CURLOPT_UNIX_SOCKET_PATH, socket) }
        if let proxy = request.proxy { ccurl_set_string(easy, CURLOPT_PROXY, proxy) }
        if let file = request.certificateAuthorities { ccurl_set_string(easy, CURLOPT_CAINFO, file) }
        if let key = request.pinnedKey {
            guard ccurl_set_string(easy, CURLOPT_PINNEDPUBLICKEY, key) == CURLE_OK, key.hasPrefix("sha256//") else {
                throw HTTPClientError(.invalidURL, "the pinned key is not well formed")
            }
            // The pin says who the peer must be, more exactly than any authority could.
            ccurl_set_long(easy, CURLOPT_SSL_VERIFYPEER, 0)
            ccurl_set_long(easy, CURLOPT_SSL_VERIFYHOST, 0)
        }
        if case .memory = request.sink {} else { ccurl_set_long(easy, CURLOPT_BUFFERSIZE, Self.fileBuffer) }
        if request.acceptCompressed { ccurl_set_string(easy, CURLOPT_ACCEPT_ENCODING, "") }
        if let envelope {
            try prepareEnvelope(easy, envelope)
        } else {
            try prepareHeaders(easy)
        }
        try prepareBody(easy)
        let context = Unmanaged.passUnretained(self).toOpaque()
        ccurl_set_pointer(easy, CURLOPT_PRIVATE, context)
        ccurl_set_pointer(easy, CURLOPT_WRITEDATA, context)
        ccurl_set_pointer(easy, CURLOPT_HEADERDATA, context)
        ccurl_set_transfer(easy, CURLOPT_WRITEFUNCTION, receiveBody)
        ccurl_set_transfer(easy, CURLOPT_HEADERFUNCTION, receiveHeader)
        self.easy = easy
    }

    private func prepareLimits(_ easy: UnsafeMutableRawPointer) {
        ccurl_set_long(easy, CURLOPT_TIMEOUT_MS, max(1, request.timeout.wholeMilliseconds))
        ccurl_set_long(easy, CURLOPT_CONNECTTIMEOUT_MS, max(1, request.connectTimeout.wholeMilliseconds))
        if let stall = request.stallTimeout {
            ccurl_set_long(easy, CURLOPT_LOW_SPEED_LIMIT, 1)
            ccurl_set_long(easy, CURLOPT_LOW_SPEED_TIME, max(1, (stall.wholeMilliseconds + 999) / 1000))
        }
        if request.redirects > 0 {
            ccurl_set_long(easy, CURLOPT_FOLLOWLOCATION, 1)
            ccurl_set_long(easy, CURLOPT_MAXREDIRS, request.redirects)
        }
    }

    private func prepareHeaders(_ easy: UnsafeMutableRawPointer) throws(HTTPClientError) {
        // An empty Expect stops libcurl from waiting for "100 Continue".
        var lines = ["Expect:"]
        for (name, value) in request.headers.pairs {
            guard !name.isEmpty, (name + value).utf8.allSatisfy({ $0 >= 0x20 || $0 == 0x09 }) else {
                throw HTTPClientError(.invalidURL, "the header \(name.prefix(40)) contains control characters")
            }
            lines.append(value.isEmpty ? "\(name);" : "\(name): \(value)")
        }
        for line in lines { list = curl_slist_append(list, line) }
        ccurl_set_list(easy, CURLOPT_HTTPHEADER, list)
    }

    private func prepareEnvelope(
        _ easy: UnsafeMutableRawPointer,
        _ envelope: MailEnvelope
    ) throws(HTTPClientError) {
        let addresses = [envelope.sender] + envelope.recipients
        guard addresses.allSatisfy({ $0.utf8.allSatisfy { $0 > 0x20 && $0 != 0x7f && !"<>".utf8.contains($0) } }) else {
            throw HTTPClientError(.invalidURL, "an address contains blanks or control characters")
        }
        ccurl_set_string(easy, CURLOPT_MAIL_FROM, "<\(envelope.sender)>")
        for recipient in envelope.recipients { list = curl_slist_append(list, "<\(recipient)>") }
        ccurl_set_list(easy, CURLOPT_MAIL_RCPT, list)
        ccurl_set_long(easy, CURLOPT_USE_SSL, envelope.requiresTLS ? ccurl_tls_required : ccurl_tls_never)
        if let user = envelope.user { ccurl_set_string(easy, CURLOPT_USERNAME, user) }
        if let password = envelope.password { ccurl_set_string(easy, CURLOPT_PASSWORD, password) }
        if let file = envelope.authorities { ccurl_set_string(easy, CURLOPT_CAINFO, file) }
    }

    private func prepareBody(_ easy: UnsafeMutableRawPointer) throws(HTTPClientError) {
        let size: Int
        switch request.body {
        case .none:
            guard ["POST", "PUT", "PATCH"].contains(request.method) else { return prepareMethod(easy) }
            size = 0
        case .bytes(let bytes):
            size = bytes.count
        case .file(let path):
            source = open(path, O_RDONLY | O_CLOEXEC)
            var information = stat()
            guard source >= 0, fstat(source, &information) == 0 else {
                throw HTTPClientError(.file, "cannot read \(path): \(Self.systemError)")
            }
            size = Int(information.st_size)
            ccurl_set_long(easy, CURLOPT_UPLOAD_BUFFERSIZE, Self.fileBuffer)
        }
        ccurl_set_long(easy, CURLOPT_UPLOAD, 1)
        if envelope == nil { ccurl_set_string(easy, CURLOPT_CUSTOMREQUEST, request.method) }
        ccurl_set_offset(easy, CURLOPT_INFILESIZE_LARGE, curl_off_t(size))
        let context = Unmanaged.passUnretained(self).toOpaque()
        ccurl_set_pointer(easy, CURLOPT_READDATA, context)
        ccurl_set_pointer(easy, CURLOPT_SEEKDATA, context)
        ccurl_set_transfer(easy, CURLOPT_READFUNCTION, sendBody)
        ccurl_set_seek(easy, rewindBody)
    }

    private func prepareMethod(_ easy: UnsafeMutableRawPointer) {
        switch request.method {
        case "GET": ccurl_set_long(easy, CURLOPT_HTTPGET, 1)
        case "HEAD": ccurl_set_long(easy, CURLOPT_NOBODY, 1)
        default: ccurl_set_string(easy, CURLOPT_CUSTOMREQUEST, request.method)
        }
    }

    // MARK: - Under way

    func send(_ buffer: UnsafeMutableRawBufferPointer) -> Int {
        switch request.body {
        case .none:
            return 0
        case .bytes(let bytes):
            let count = min(buffer.count, bytes.count - position)
            buffer.copyBytes(from: bytes[position..<(position + count)])
            position += count
            return count
        case .file(let path):
            let count = read(source, buffer.baseAddress, buffer.count)
            if count >= 0 { return count }
            failure = HTTPClientError(.file, "cannot read \(path): \(Self.systemError)")
            return ccurl_read_abort
        }
    }

    func rewind(to offset: Int) -> Bool {
        position = offset
        return source < 0 || lseek(source, offset, SEEK_SET) == offset
    }

    func receive(header line: some Collection<UInt8>) {
        let text = String(decoding: line, as: UTF8.self)
        if text.hasPrefix("HTTP/") {
            isHeadComplete = false
            headers = HTTPHeaders()
            status = text.split(separator: " ").dropFirst().first.flatMap { Int($0.prefix(3)) } ?? 0
            return
        }
        guard let colon = text.utf8.firstIndex(of: UInt8(ascii: ":")) else {
            if text == "\r\n" || text == "\n" { isHeadComplete = status >= 200 }
            return
        }
        // As bytes: a header's blanks are ASCII, and there are many headers.
        let isBlank = { (byte: UInt8) in byte == 0x20 || (0x09...0x0D).contains(byte) }
        var value = text.utf8[text.utf8.index(after: colon)...].drop(while: isBlank)
        while let last = value.last, isBlank(last) { value.removeLast() }
        headers.add(String(text[..<colon]), String(Substring(value)))
    }

    /// What became of a piece of the body.
    enum Reception { case taken, refused, later }

    func receive(body bytes: UnsafeRawBufferPointer) -> Reception {
        // What was refused while the transfer stood still does not end it by itself.
        guard failure == nil, tellHead() else { return .refused }
        switch request.sink {
        case .spool(let path, let memory, let offset) where (200..<300).contains(status):
            if sink < 0, status != 206, received.count + bytes.count <= memory {
                received.append(contentsOf: bytes)
                return .taken
            }
            return spool(bytes, path, offset)
        case .file(let path) where (200..<300).contains(status):
            return openFile(path) ? collect(bytes, path) : .refused
        case .file, .spool:
            // The body of an error answers a person, not the file; keep its beginning.
            received.append(contentsOf: bytes.prefix(max(0, 1 << 20 - received.count)))
        case .memory(let limit):
            guard received.count + bytes.count <= limit else {
                failure = HTTPClientError(.tooLarge, "the response is longer than \(limit) bytes")
                return .refused
            }
            received.append(contentsOf: bytes)
        }
        return .taken
    }

    /// Shows the head to whoever wants to see it, once; false when that ends the transfer.
    private func tellHead() -> Bool {
        guard !isHeadTold else { return true }
        isHeadTold = true
        failure = request.onHead?(HTTPResponse(status: status, headers: headers))
        return failure == nil
    }

    /// Writes on in a file, beginning with what memory held so far.
    private func spool(_ bytes: UnsafeRawBufferPointer, _ path: String, _ offset: Int) -> Reception {
        if sink < 0 {
            if status == 206, headers["Content-Range"]?.hasPrefix("bytes \(offset)-") != true {
                failure = HTTPClientError(.other, "the server answered with another range than the one asked for")
                return .refused
            }
            sink = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644)
            let start = status == 206 ? offset : 0
            var info = stat()
            // A file that is emptied, even of nothing, is written to the disk at once when it is closed; so only what is too long is cut.
            guard sink >= 0, fstat(sink, &info) == 0, info.st_size <= start || ftruncate(sink, start) == 0,
                lseek(sink, start, SEEK_SET) == start
            else {
                failure = HTTPClientError(.file, "cannot write \(path): \(Self.systemError)")
                return .refused
            }
            announceFile(start)
            for piece in received.chunks(of: BodyWitness.Block.size) {
                guard piece.withUnsafeBytes({ collect($0, path, mayWait: false) }) == .taken else { return .refused }
            }
            received = []
        }
        return collect(bytes, path)
    }

    private func openFile(_ path: String) -> Bool {
        guard sink < 0 else { return true }
        sink = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard sink >= 0 else {
            failure = HTTPClientError(.file, "cannot write \(path): \(Self.systemError)")
            return false
        }
        announceFile(0)
        return true
    }

    private func announceFile(_ offset: Int) {
        witness = request.onFile?(offset).map { BodyWitness($0, onRoom: resume) }
    }

    /// Adds to the block at hand, or to the next one once that is full and written.
    private func collect(_ bytes: UnsafeRawBufferPointer, _ path: String, mayWait: Bool = true) -> Reception {
        if let block, block.rest < bytes.count, !flush(path) { return .refused }
        if block == nil {
            if let witness, let lent = witness.block() {
                block = lent
            } else if witness == nil || !mayWait {
                block = BodyWitness.Block()
            }
        }
        guard let block else { return .later }
        block.append(bytes)
        return .taken
    }

    /// Writes the block at hand into the file and shows it to the witness.
    private func flush(_ path: String) -> Bool {
        guard let block, block.count > 0 else { return true }
        var rest = block.bytes
        while let base = rest.baseAddress, !rest.isEmpty {
            let count = Glibc.write(sink, base, rest.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else {
                failure = HTTPClientError(.file, "cannot write \(path): \(Self.systemError)")
                self.block = nil
                return false
            }
            rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
        }
        if let witness {
            witness.show(block)
            self.block = nil
        } else {
            block.count = 0
        }
        return true
    }

    // MARK: - The end

    func result(_ code: CURLcode) -> Result<HTTPResponse, HTTPClientError> {
        if envelope != nil, failure == nil, let easy {
            // A refusal fails the transfer; the server's last word tells more.
            var reply = 0
            ccurl_get_long(easy, CURLINFO_RESPONSE_CODE, &reply)
            if code == CURLE_OK || (400..<600).contains(reply) { return .success(HTTPResponse(status: reply)) }
        }
        if code == CURLE_OK, failure == nil, !isHeadComplete {
            failure = HTTPClientError(.aborted, "the connection broke: the answer ended within its head")
        }
        // A body of no bytes has not shown its head yet.
        if code == CURLE_OK, failure == nil { _ = tellHead() }
        finishFile()
        if let failure = failure ?? Self.error(code) {
            discardSink()
            return .failure(failure)
        }
        // An empty body makes an empty file.
        if case .file(let path) = request.sink, (200..<300).contains(status), sink < 0, !openFile(path) {
            return .failure(failure ?? HTTPClientError(.file, "cannot write \(path)"))
        }
        closeFiles()
        return .success(HTTPResponse(status: status, headers: headers, body: received))
    }

    /// Writes what was collected; of a transfer that failed, too, since it may be continued.
    private func finishFile() {
        switch request.sink {
        case .file(let path), .spool(let path, _, _): if sink >= 0 { _ = flush(path) }
        case .memory: break
        }
    }

    private func discardSink() {
        finishFile()
        witness?.abandon()
        if sink >= 0, case .file(let path) = request.sink { unlink(path) }
        closeFiles()
    }

    private func closeFiles() {
        if source >= 0 { close(source) }
        if sink >= 0 { close(sink) }
        (source, sink) = (-1, -1)
    }

    private static func error(_ code: CURLcode) -> HTTPClientError? {
        let reason = String(cString: curl_easy_strerror(code)).lowercased()
        switch code {
        case CURLE_OK: return nil
        case CURLE_COULDNT_CONNECT, CURLE_COULDNT_RESOLVE_HOST, CURLE_COULDNT_RESOLVE_PROXY:
            return HTTPClientError(.connect, "cannot connect: \(reason)")
        case CURLE_OPERATION_TIMEDOUT: return HTTPClientError(.timeout, "no answer in time: \(reason)")
        case CURLE_SSL_CONNECT_ERROR, CURLE_PEER_FAILED_VERIFICATION, CURLE_SSL_CACERT_BADFILE, CURLE_SSL_CERTPROBLEM,
            CURLE_SSL_PINNEDPUBKEYNOTMATCH:
            return HTTPClientError(.tls, "no trusted connection: \(reason)")
        case CURLE_TOO_MANY_REDIRECTS: return HTTPClientError(.redirect, "the answers lead on and on: \(reason)")
        case CURLE_URL_MALFORMAT, CURLE_UNSUPPORTED_PROTOCOL: return HTTPClientError(.invalidURL, reason)
        case CURLE_PARTIAL_FILE, CURLE_GOT_NOTHING, CURLE_RECV_ERROR, CURLE_SEND_ERROR, CURLE_HTTP2,
            CURLE_HTTP2_STREAM:
            return HTTPClientError(.aborted, "the connection broke: \(reason)")
        default: return HTTPClientError(.other, "\(reason) (curl \(code.rawValue))")
        }
    }

    private static var systemError: String { String(cString: strerror(errno)) }
}

extension Duration {
    /// Milliseconds, rounded down.
    fileprivate var wholeMilliseconds: Int {
        Int(components.seconds) * 1000 + Int(components.attoseconds / 1_000_000_000_000_000)
    }
}

// SAFETY: each context is the unretained transfer that the loop keeps alive while its handle is in the multi handle;
// libcurl calls these on the loop's thread, inside curl_multi_perform, and the buffers are valid during the call.

private func transfer(_ context: UnsafeMutableRawPointer?) -> Transfer? {
    context.map { Unmanaged<Transfer>.fromOpaque($0).takeUnretainedValue() }
}

private func receiveBody(
    _ bytes: UnsafeMutablePointer<CChar>?,
    _: Int,
    _ count: Int,
    _ context: UnsafeMutableRawPointer?
)
    -> Int
{
    guard let transfer = transfer(context) else { return 0 }
    return switch transfer.receive(body: UnsafeRawBufferPointer(start: bytes, count: count)) {
    case .taken: count
    case .refused: 0
    case .later: Int(CURL_WRITEFUNC_PAUSE)
    }
}

private func receiveHeader(
    _ bytes: UnsafeMutablePointer<CChar>?,
    _ size: Int,
    _ count: Int,
    _ context: UnsafeMutableRawPointer?
) -> Int {
    transfer(context)?.receive(header: UnsafeRawBufferPointer(start: bytes, count: size * count))
    return size * count
}

private func sendBody(
    _ buffer: UnsafeMutablePointer<CChar>?,
    _ size: Int,
    _ count: Int,
    _ context: UnsafeMutableRawPointer?
) -> Int {
    transfer(context)?.send(UnsafeMutableRawBufferPointer(start: buffer, count: size * count)) ?? ccurl_read_abort
}

private func rewindBody(_ context: UnsafeMutableRawPointer?, _ offset: curl_off_t, _ origin: Int32) -> Int32 {
    guard origin == SEEK_SET, transfer(context)?.rewind(to: Int(offset)) == true else { return CURL_SEEKFUNC_FAIL }
    return CURL_SEEKFUNC_OK
}

extension [UInt8] {
    /// The same bytes in runs of at most this length.
    fileprivate func chunks(of length: Int) -> [ArraySlice<UInt8>] {
        stride(from: 0, to: count, by: length).map { self[$0..<Swift.min($0 + length, count)] }
    }
}
