// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc

/// An open file that is closed with its last reference.
public final class OpenFile: Sendable {
    /// The descriptor, for as long as this value lives.
    public let descriptor: Int32

    /// Takes over an open descriptor.
    public init(adopting descriptor: Int32) {
        self.descriptor = descriptor
    }

    deinit { close(descriptor) }

    /// Opens a file for reading.
    public static func reading(_ path: String) throws -> OpenFile {
        try OpenFile(checking: open(path, O_RDONLY | O_CLOEXEC), "cannot open \(path)")
    }

    /// Creates a file without a name in a directory; it vanishes with its last descriptor.
    public static func temporary(in directory: String) throws -> OpenFile {
        // O_TMPFILE, which the C library shows to GNU programs only.
        let withoutName: Int32 = 0o20_200_000
        let descriptor = open(directory, O_RDWR | withoutName | O_CLOEXEC, 0o600)
        if descriptor >= 0 { return OpenFile(adopting: descriptor) }
        // Not every filesystem can do that: use a name for a moment instead.
        var template = Array("\(directory)/.slipway-XXXXXX".utf8CString)
        let named = try OpenFile(checking: mkstemp(&template), "cannot create a file in \(directory)")
        _ = fcntl(named.descriptor, F_SETFD, FD_CLOEXEC)
        unlink(&template)
        return named
    }

    init(checking descriptor: Int32, _ what: String) throws {
        guard descriptor >= 0 else { throw FileError(what, errno) }
        self.descriptor = descriptor
    }

    /// A path under which this very file can be opened again by this process, name or no name.
    public var path: String { "/proc/self/fd/\(descriptor)" }

    /// The size in bytes at this moment.
    public var size: Int {
        var info = stat()
        return fstat(descriptor, &info) == 0 ? Int(info.st_size) : 0
    }

    /// Reads the whole file from its beginning in pieces, whatever the position was.
    public func forEachPiece(_ body: (UnsafeRawBufferPointer) throws -> Void) throws {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
        defer { buffer.deallocate() }
        var offset = 0
        while true {
            let count = pread(descriptor, buffer.baseAddress, buffer.count, off_t(offset))
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw FileError("cannot read a file", errno) }
            guard count > 0 else { return }
            try body(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
            offset += count
        }
    }

    /// Appends all these bytes.
    public func write(_ bytes: UnsafeRawBufferPointer) throws {
        var rest = bytes
        while let base = rest.baseAddress, !rest.isEmpty {
            let count = Glibc.write(descriptor, base, rest.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw FileError("cannot write a file", errno) }
            rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
        }
    }
}

/// A file that could not be read or written.
public struct FileError: Error, Sendable, CustomStringConvertible {
    /// One line for a person.
    public let description: String
    /// The system's error number.
    public let systemError: Int32

    /// Describes a failed call.
    public init(_ what: String, _ systemError: Int32) {
        self.systemError = systemError
        description = "\(what): \(String(cString: strerror(systemError)))"
    }
}
