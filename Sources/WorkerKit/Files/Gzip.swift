// SPDX-License-Identifier: MPL-2.0

import CZlib
import Glibc

/// Streams files through gzip with a bounded amount of memory.
///
/// Everything here blocks: call it through ``FileWork``.
public enum Gzip {
    private static let gzipWindow: Int32 = 15 + 16

    /// Writes the compressed form of a whole file to the end of another.
    public static func compress(_ source: OpenFile, to target: OpenFile) throws {
        var stream = z_stream()
        let size = Int32(MemoryLayout<z_stream>.size)
        guard
            deflateInit2_(&stream, 6, Z_DEFLATED, gzipWindow, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, size) == Z_OK
        else { throw FileError("cannot start compressing", ENOMEM) }
        defer { deflateEnd(&stream) }
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: 128 << 10, alignment: 4096)
        defer { output.deallocate() }

        func pump(_ input: UnsafeRawBufferPointer, _ flush: Int32) throws {
            stream.next_in = UnsafeMutablePointer(mutating: input.bindMemory(to: Bytef.self).baseAddress)
            stream.avail_in = uInt(input.count)
            repeat {
                stream.next_out = output.bindMemory(to: Bytef.self).baseAddress
                stream.avail_out = uInt(output.count)
                guard deflate(&stream, flush) >= Z_OK || flush == Z_FINISH else {
                    throw FileError("cannot compress", EIO)
                }
                let made = output.count - Int(stream.avail_out)
                try target.write(UnsafeRawBufferPointer(rebasing: output[..<made]))
            } while stream.avail_out == 0
        }

        try source.forEachPiece { try pump($0, Z_NO_FLUSH) }
        try pump(UnsafeRawBufferPointer(start: nil, count: 0), Z_FINISH)
    }

    /// Writes what a compressed file holds to the end of another.
    ///
    /// Several members in a row are one content. Bytes behind a complete member that are no further member are ignored, since a known
    /// worker appends plain text to an already compressed log; a member that ends too early is an error.
    public static func decompress(_ source: OpenFile, to target: OpenFile) throws {
        var stream = z_stream()
        guard inflateInit2_(&stream, gzipWindow, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else {
            throw FileError("cannot start decompressing", ENOMEM)
        }
        defer { inflateEnd(&stream) }
        let output = UnsafeMutableRawBufferPointer.allocate(byteCount: 256 << 10, alignment: 4096)
        defer { output.deallocate() }
        var members = 0
        var isInside = false
        var isOver = false

        try source.forEachPiece { input in
            guard !isOver else { return }
            stream.next_in = UnsafeMutablePointer(mutating: input.bindMemory(to: Bytef.self).baseAddress)
            stream.avail_in = uInt(input.count)
            var result = Z_OK
            repeat {
                if stream.avail_in > 0 { isInside = true }
                stream.next_out = output.bindMemory(to: Bytef.self).baseAddress
                stream.avail_out = uInt(output.count)
                result = inflate(&stream, Z_NO_FLUSH)
                let made = output.count - Int(stream.avail_out)
                try target.write(UnsafeRawBufferPointer(rebasing: output[..<made]))
                switch result {
                case Z_STREAM_END:
                    members += 1
                    isInside = false
                    inflateReset(&stream)
                case Z_OK, Z_BUF_ERROR:
                    break
                default:
                    // Nothing decoded since the last complete member: what follows it is not gzip.
                    guard members > 0, stream.total_out == 0 else {
                        throw FileError("the compressed data is damaged", EBADMSG)
                    }
                    isOver = true
                }
            } while !isOver && (stream.avail_in > 0 || (result == Z_OK && stream.avail_out == 0))
        }
        guard members > 0, !isInside || stream.total_out == 0 else {
            throw FileError("the compressed data ends too early", EBADMSG)
        }
    }
}
