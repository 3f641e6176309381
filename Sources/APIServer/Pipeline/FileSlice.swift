// SPDX-License-Identifier: MPL-2.0

import Glibc
import HTTPTypes
import HummingbirdCore
import NIOCore
import NIOPosix

/// An open file; closed when nobody needs it any more.
final class OpenFile: Sendable {
    let descriptor: CInt
    let size: Int
    /// Changes whenever the file does.
    let tag: String

    /// Opens a file for reading; nil if there is none.
    init?(path: String) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            close(descriptor)
            return nil
        }
        self.descriptor = descriptor
        size = Int(status.st_size)
        let modified = UInt64(status.st_mtim.tv_sec) * 1_000_000_000 + UInt64(status.st_mtim.tv_nsec)
        tag = "\"\(String(size, radix: 16))-\(String(modified, radix: 16))\""
    }

    deinit {
        close(descriptor)
    }
}

/// A run of bytes of an open file, sent in pieces so that its length costs no memory.
struct FileSlice: Sendable {
    let file: OpenFile
    let offset: Int
    let length: Int

    private static let piece = 128 * 1024
    // Disks can be slow, and blocking a thread of the cooperative pool stops everybody else.
    private static let threads: NIOThreadPool = {
        let pool = NIOThreadPool(numberOfThreads: 2)
        pool.start()
        return pool
    }()

    /// Writes the bytes; throws if the file turns out shorter than it was.
    @concurrent
    func write(to writer: inout any ResponseBodyWriter) async throws {
        var position = offset
        let end = offset + length
        while position < end {
            let count = min(Self.piece, end - position)
            let buffer = try await Self.threads.runIfActive { [file, position] in
                try Self.read(file, at: position, count)
            }
            position += buffer.readableBytes
            try await writer.write(buffer)
        }
    }

    private static func read(_ file: OpenFile, at offset: Int, _ count: Int) throws -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: count)
        let result = buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) {
            max(pread(file.descriptor, $0.baseAddress, count, off_t(offset)), 0)
        }
        guard result > 0 else { throw ServerFault(message: "a file became shorter while it was sent") }
        return buffer
    }
}

/// Answers that send a file, with what HTTP has for resuming and caching.
enum FileReply {
    static func make(path: String, status: Int = 200, own: HTTPFields, request: HTTPFields) -> Reply? {
        guard let file = OpenFile(path: path) else { return nil }
        var fields = own
        let tag = fields[.eTag] ?? file.tag
        fields[.eTag] = tag
        fields[.acceptRanges] = "bytes"
        if fields[.contentType] == nil {
            fields[.contentType] = "application/octet-stream"
        }
        if let known = request[.ifNoneMatch], known == "*" || known.contains(tag) {
            return Reply(304, fields: fields)
        }
        let whole = FileSlice(file: file, offset: 0, length: file.size)
        let mayResume = request[.ifRange].map { $0 == tag } ?? true
        guard status == 200, mayResume, let wanted = request[.range].flatMap({ ByteRange.parse($0, of: file.size) })
        else {
            return Reply(status, fields: fields, body: .file(whole))
        }
        switch wanted {
        case .bytes(let range):
            fields[.contentRange] = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(file.size)"
            let slice = FileSlice(file: file, offset: range.lowerBound, length: range.count)
            return Reply(206, fields: fields, body: .file(slice))
        case .unsatisfiable:
            fields[.contentRange] = "bytes */\(file.size)"
            return Reply(416, fields: fields)
        }
    }
}

/// The one kind of range that is honoured: a single run of bytes.
enum ByteRange: Equatable {
    case bytes(Range<Int>)
    case unsatisfiable

    /// Reads a `Range` field; nil means that it is to be ignored.
    static func parse(_ text: String, of size: Int) -> ByteRange? {
        guard text.hasPrefix("bytes=") else { return nil }
        let parts = text.dropFirst(6).split(separator: "-", omittingEmptySubsequences: false)
            .map { $0.trimmingBlanks() }
        guard parts.count == 2, parts.allSatisfy({ $0.utf8.allSatisfy { (48...57).contains($0) } }) else { return nil }
        switch (Int(parts[0]), Int(parts[1])) {
        case (let first?, let last?):
            guard first <= last else { return nil }
            return first < size ? .bytes(first..<min(last, size - 1) + 1) : .unsatisfiable
        case (let first?, nil):
            guard parts[1].isEmpty else { return nil }
            return first < size ? .bytes(first..<size) : .unsatisfiable
        case (nil, let count?):
            guard parts[0].isEmpty else { return nil }
            return count > 0 && size > 0 ? .bytes(max(size - count, 0)..<size) : .unsatisfiable
        case (nil, nil):
            return nil
        }
    }
}
