// SPDX-License-Identifier: MPL-2.0

import Glibc
import WorkerKit

/// Whole small files.
enum FileText {
    static func bytes(_ path: String) throws -> [UInt8] {
        var bytes: [UInt8] = []
        try OpenFile.reading(path).forEachPiece { bytes.append(contentsOf: $0) }
        return bytes
    }

    static func read(_ path: String) throws -> String { String(decoding: try bytes(path), as: UTF8.self) }

    static func write(_ bytes: [UInt8], to path: String, mode: mode_t = 0o644) throws {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode)
        guard descriptor >= 0 else { throw FileError("cannot create \(path)", errno) }
        try bytes.withUnsafeBytes { try OpenFile(adopting: descriptor).write($0) }
    }

    /// Puts a complete new file in place of the old one; of several writers at the same time the last one wins.
    static func replace(_ path: String, with bytes: [UInt8]) throws {
        let fresh = "\(path).\(UInt64.random(in: .min ... .max)).new"
        do {
            try write(bytes, to: fresh)
            guard rename(fresh, path) == 0 else { throw FileError("cannot replace \(path)", errno) }
        } catch {
            unlink(fresh)
            throw error
        }
    }
}
