// SPDX-License-Identifier: MPL-2.0

import Core
import Crypto
import Glibc
import Synchronization

/// Digests of files, as lower-case hexadecimal text.
public enum FileDigest {
    /// The SHA-256 of a whole file; blocks, so call it through ``FileWork``.
    public static func sha256(_ file: OpenFile) throws -> String {
        try digests(file, ["sha256"])["sha256"] ?? ""
    }

    /// The SHA-512 of a whole file; blocks, so call it through ``FileWork``.
    public static func sha512(_ file: OpenFile) throws -> String {
        try digests(file, ["sha512"])["sha512"] ?? ""
    }

    /// Several digests of a whole file, by the algorithms' names; blocks.
    public static func digests(_ file: OpenFile, _ algorithms: Set<String>) throws -> [String: String] {
        var digester = Digester(algorithms)
        try file.forEachPiece { digester.update($0) }
        return digester.finish()
    }
}

/// Several digests of the same bytes at once.
struct Digester {
    private var sha256: SHA256?
    private var sha512: SHA512?
    private var md5: Insecure.MD5?

    init(_ algorithms: Set<String>) {
        if algorithms.contains("sha256") { sha256 = SHA256() }
        if algorithms.contains("sha512") { sha512 = SHA512() }
        if algorithms.contains("md5") { md5 = Insecure.MD5() }
    }

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        sha256?.update(bufferPointer: bytes)
        sha512?.update(bufferPointer: bytes)
        md5?.update(bufferPointer: bytes)
    }

    func finish() -> [String: String] {
        var digests: [String: String] = [:]
        if let sha256 { digests["sha256"] = Self.hexadecimal(sha256.finalize()) }
        if let sha512 { digests["sha512"] = Self.hexadecimal(sha512.finalize()) }
        if let md5 { digests["md5"] = Self.hexadecimal(md5.finalize()) }
        return digests
    }

    private static func hexadecimal(_ digest: some Sequence<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: digest.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}

/// Digests of a file that another thread is still writing, made while it grows.
///
/// A thread of its own reads behind the writer, from memory as long as it keeps up, so that receiving and hashing a big file take as long
/// as the slower of the two.
final class GrowingFileDigest: Sendable {
    private enum Phase { case growing, complete, abandoned }

    private let path: String
    private let algorithms: Set<String>
    private let phase = Mutex(Phase.growing)
    private let result = Latch<Result<[String: String], FileError>>()

    init(_ path: String, _ algorithms: Set<String>) {
        self.path = path
        self.algorithms = algorithms
        startThread(named: "digest") { [self] in result.set(follow()) }
    }

    /// Says that the file is complete and returns its digests.
    func digests() async throws -> [String: String] {
        phase.withLock { $0 = .complete }
        guard let result = await result.wait() else { throw CancellationError() }
        return try result.get()
    }

    /// Ends the thread without a result.
    func abandon() { phase.withLock { $0 = .abandoned } }

    private func follow() -> Result<[String: String], FileError> {
        var digester = Digester(algorithms)
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        var file: OpenFile?
        while true {
            // Asked before reading: only then does an empty read after a yes mean the end.
            let phase = phase.withLock { $0 }
            if phase == .abandoned { return .failure(FileError("a transfer ended", ECANCELED)) }
            if file == nil { file = try? OpenFile.reading(path) }
            if let file {
                let count = read(file.descriptor, buffer.baseAddress, buffer.count)
                if count < 0, errno != EINTR { return .failure(FileError("cannot read \(path)", errno)) }
                if count > 0 {
                    digester.update(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                    continue
                }
            }
            if phase == .complete {
                return file == nil ? .failure(FileError("cannot read \(path)", ENOENT)) : .success(digester.finish())
            }
            usleep(2000)
        }
    }
}
