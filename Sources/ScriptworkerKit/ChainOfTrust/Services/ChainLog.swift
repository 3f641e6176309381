// SPDX-License-Identifier: MPL-2.0

import Glibc
import Schedules
import Synchronization
import WorkerKit

/// Where verification tells what it does.
struct ChainLog: Sendable {
    enum Level: String, Sendable { case debug = "DEBUG", info = "INFO", warning = "WARNING", critical = "CRITICAL" }

    let write: @Sendable (Level, String) -> Void

    func debug(_ text: String) { write(.debug, text) }
    func info(_ text: String) { write(.info, text) }
    func warning(_ text: String) { write(.warning, text) }
    func critical(_ text: String) { write(.critical, text) }
}

/// `chain_of_trust.log`: everything that verification looked at, for people who ask why.
final class AuditLog: Sendable {
    private let path: String
    private let file: OpenFile
    private let content = Mutex<[UInt8]>([])

    init(path: String) throws {
        self.path = path
        let flags = O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW
        let descriptor = open(path, flags, 0o644)
        guard descriptor >= 0 else { throw FileError("cannot create \(path)", errno) }
        file = OpenFile(adopting: descriptor)
    }

    func write(_ level: ChainLog.Level, _ text: String) {
        let indent = level == .debug ? " " : ""
        var lines = ""
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            lines += "\(indent)\(Timestamp.now()) \(level.rawValue) - \(URLMask.masked(String(line)))\n"
        }
        let bytes = Array(lines.utf8)
        content.withLock { content in
            content += bytes
            // A full disk must not change the verdict.
            try? bytes.withUnsafeBytes { try file.write($0) }
        }
    }

    /// Whether the file still is what was written; puts it back if not.
    func restore() -> Bool {
        content.withLock { content in
            if (try? FileText.bytes(path)) == content { return true }
            unlink(path)
            try? FileText.write(content, to: path)
            return false
        }
    }
}
