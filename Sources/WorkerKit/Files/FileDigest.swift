// SPDX-License-Identifier: MPL-2.0

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

/// Digests of a file that is still arriving, made from the bytes as they pass.
///
/// One that is continued begins with what is there already; `observe` is then called once without bytes first, on the thread that may wait for
/// the disk.
final class ArrivingFileDigest: Sendable {
    private struct State {
        var digester: Digester
        var failure: FileError?
        var hasBegun = false
    }

    private let path: String
    private let offset: Int
    private let state: Mutex<State>

    init(_ path: String, from offset: Int, _ algorithms: Set<String>) {
        self.path = path
        self.offset = offset
        state = Mutex(State(digester: Digester(algorithms)))
    }

    func observe(_ bytes: UnsafeRawBufferPointer) {
        state.withLock { state in
            if !state.hasBegun {
                state.hasBegun = true
                readBeginning(&state)
            }
            if !bytes.isEmpty { state.digester.update(bytes) }
        }
    }

    /// The digests, once everything was observed.
    func digests() throws(FileError) -> [String: String] {
        let (digests, failure) = state.withLock { ($0.digester.finish(), $0.failure) }
        if let failure { throw failure }
        return digests
    }

    private func readBeginning(_ state: inout State) {
        guard offset > 0 else { return }
        var left = offset
        do {
            try OpenFile.reading(path).forEachPiece { piece in
                let known = UnsafeRawBufferPointer(rebasing: piece.prefix(left))
                if !known.isEmpty { state.digester.update(known) }
                left -= known.count
            }
            if left > 0 { state.failure = FileError("\(path) became shorter", EIO) }
        } catch {
            state.failure = error as? FileError ?? FileError("cannot read \(path)", EIO)
        }
    }
}
