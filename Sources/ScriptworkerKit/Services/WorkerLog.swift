// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON
import Processes
import Synchronization

/// The worker's own log: a file in the configured format and, when verbose, standard error.
///
/// Known secrets and signed URLs are cut out of every line. Nothing that goes wrong with the file disturbs the worker.
final class WorkerLog: Sendable {
    enum Level: String {
        case debug = "DEBUG"
        case info = "INFO"
        case warning = "WARNING"
        case error = "ERROR"
        case critical = "CRITICAL"
    }

    private struct State {
        var descriptor: Int32 = -1
        var secrets: [String] = []
        var carried: [UInt8] = []
    }

    private let path: String
    private let isVerbose: Bool
    private let dateFormat: String
    private let format: String
    private let watchesFile: Bool
    private let state = Mutex(State())

    init(_ configuration: ScriptworkerConfiguration) {
        path = "\(configuration.logDirectory)/worker.log"
        isVerbose = configuration.file.flag("verbose")
        dateFormat = configuration.file.text("log_datefmt")
        format = configuration.file.text("log_fmt")
        watchesFile = configuration.file.flag("watch_log_file")
        reopen()
    }

    func debug(_ text: String) { if isVerbose { write(.debug, text) } }
    func info(_ text: String) { write(.info, text) }
    func warning(_ text: String) { write(.warning, text) }
    func error(_ text: String) { write(.error, text) }
    func critical(_ text: String) { write(.critical, text) }

    /// Adds texts that must never appear.
    func hide(_ secrets: [String?]) {
        state.withLock { state in
            for secret in secrets.compactMap({ $0 }) where secret.utf8.count >= 8 && !state.secrets.contains(secret) {
                // Task credentials change for ever; old ones have long expired.
                if state.secrets.count >= 16 { state.secrets.remove(at: 4) }
                state.secrets.append(secret)
            }
        }
    }

    /// Opens the file again, after something moved it away.
    func reopen() {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        state.withLock { state in
            if state.descriptor >= 0 { close(state.descriptor) }
            state.descriptor = descriptor
        }
    }

    /// Copies what a script prints, a prefix before each line.
    func mirror(_ bytes: UnsafeRawBufferPointer) {
        let prefix = Array(line(.info, "").utf8.dropLast())
        state.withLock { state in
            var output: [UInt8] = []
            output.reserveCapacity(bytes.count + bytes.count / 2 + 128)
            state.carried.append(contentsOf: bytes)
            var rest = state.carried[...]
            while let end = rest.firstIndex(of: 10) {
                output += prefix
                output += rest[...end]
                rest = rest[(end + 1)...]
            }
            // A line without an end is not kept growing for ever.
            if rest.count > 64 << 10 {
                output += prefix + rest + [10]
                rest = []
            }
            state.carried = Array(rest)
            emit(hidden(output, state.secrets), state)
        }
    }

    private func write(_ level: Level, _ text: String) {
        if watchesFile, !isCurrent { reopen() }
        let line = line(level, URLMask.masked(text))
        state.withLock { emit(hidden(Array(line.utf8), $0.secrets), $0) }
    }

    private func emit(_ bytes: [UInt8], _ state: borrowing State) {
        for descriptor in [state.descriptor, isVerbose ? 2 : -1] where descriptor >= 0 {
            var rest = bytes[...]
            while !rest.isEmpty {
                let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { break }
                rest = rest.dropFirst(count)
            }
        }
    }

    private var isCurrent: Bool {
        var named = stat()
        var opened = stat()
        let descriptor = state.withLock { $0.descriptor }
        return stat(path, &named) == 0 && fstat(descriptor, &opened) == 0 && named.st_ino == opened.st_ino
            && named.st_dev == opened.st_dev
    }

    private func line(_ level: Level, _ text: String) -> String {
        var now = time(nil)
        var local = tm()
        localtime_r(&now, &local)
        var buffer = [CChar](repeating: 0, count: 128)
        let count = strftime(&buffer, buffer.count, dateFormat, &local)
        let date = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return LogFormat.line(
            format,
            [
                "asctime": date, "levelname": level.rawValue, "message": text, "name": "scriptworker",
                "process": "\(getpid())",
            ]
        ) + "\n"
    }

    /// Replaces secrets; the search over bytes is quick when there are none, as almost always.
    private func hidden(_ bytes: [UInt8], _ secrets: [String]) -> [UInt8] {
        var bytes = bytes
        for secret in secrets {
            let pattern = Array(secret.utf8)
            var from = 0
            while from < bytes.count {
                let found = Self.position(of: pattern, in: bytes, from: from)
                guard let found else { break }
                bytes.replaceSubrange(found..<(found + pattern.count), with: Array("********".utf8))
                from = found + 8
            }
        }
        return bytes
    }

    private static func position(of pattern: [UInt8], in bytes: [UInt8], from: Int) -> Int? {
        bytes.withUnsafeBytes { all in
            guard let base = all.baseAddress, let first = pattern.first else { return nil }
            var offset = from
            while offset + pattern.count <= all.count {
                guard let hit = memchr(base + offset, Int32(first), all.count - pattern.count - offset + 1) else {
                    return nil
                }
                offset = UnsafeRawPointer(hit) - base
                if memcmp(base + offset, pattern, pattern.count) == 0 { return offset }
                offset += 1
            }
            return nil
        }
    }
}
