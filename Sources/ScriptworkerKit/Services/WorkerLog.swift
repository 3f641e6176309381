// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc
import JSON
import Processes
import Schedules
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
        var scratch: [UInt8] = []
        var written = 0
    }

    private let path: String
    private let isVerbose: Bool
    private let dateFormat: String
    private let format: String
    private let watchesFile: Bool
    private let isStructured: Bool
    private let rotation: (bytes: Int, files: Int)
    private let state = Mutex(State())

    init(_ configuration: ScriptworkerConfiguration) {
        path = "\(configuration.logDirectory)/worker.log"
        isVerbose = configuration.file.flag("verbose")
        dateFormat = configuration.file.text("log_datefmt")
        format = configuration.file.text("log_fmt")
        watchesFile = configuration.file.flag("watch_log_file")
        isStructured = configuration.file.text("log_format") == "json"
        rotation = (configuration.file.whole("log_max_bytes"), configuration.file.whole("log_max_backups"))
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
                // Task credentials change for ever; old ones have long expired, and every search costs.
                if state.secrets.count >= 8 { state.secrets.remove(at: 2) }
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
            var info = stat()
            state.written = fstat(descriptor, &info) == 0 ? Int(info.st_size) : 0
        }
    }

    /// Copies what a script prints, a prefix before each line.
    ///
    /// A script may print hundreds of megabytes, so lines are put together in one reused buffer and searched for secrets there.
    func mirror(_ bytes: UnsafeRawBufferPointer) {
        let prefix = Array(line(.info, "").utf8.dropLast())
        state.withLock { state in
            var output = state.scratch
            state.scratch = []
            output.removeAll(keepingCapacity: true)
            var rest = bytes
            while let base = rest.baseAddress, let hit = memchr(base, 10, rest.count) {
                let count = UnsafeRawPointer(hit) - base + 1
                if isStructured {
                    let text = state.carried + rest[..<(count - 1)]
                    output.append(contentsOf: line(.info, String(decoding: text, as: UTF8.self)).utf8)
                } else {
                    output.append(contentsOf: prefix)
                    output.append(contentsOf: state.carried)
                    output.append(contentsOf: UnsafeRawBufferPointer(rebasing: rest[..<count]))
                }
                state.carried.removeAll(keepingCapacity: true)
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            }
            state.carried.append(contentsOf: rest)
            // A line without an end is not kept growing for ever.
            if state.carried.count > 64 << 10 {
                output.append(contentsOf: prefix)
                output.append(contentsOf: state.carried)
                output.append(10)
                state.carried.removeAll(keepingCapacity: false)
            }
            hide(state.secrets, in: &output)
            emit(output, &state)
            if output.capacity <= 4 << 20 { state.scratch = output }
        }
    }

    private func write(_ level: Level, _ text: String) {
        if watchesFile, !isCurrent { reopen() }
        var line = Array(line(level, URLMask.masked(text)).utf8)
        state.withLock { state in
            hide(state.secrets, in: &line)
            emit(line, &state)
        }
    }

    private func emit(_ bytes: [UInt8], _ state: inout State) {
        for descriptor in [state.descriptor, isVerbose ? 2 : -1] where descriptor >= 0 {
            bytes.withUnsafeBytes { bytes in
                var rest = bytes
                while let base = rest.baseAddress, !rest.isEmpty {
                    let count = Glibc.write(descriptor, base, rest.count)
                    if count < 0, errno == EINTR { continue }
                    guard count > 0 else { break }
                    rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                }
            }
        }
        guard !watchesFile, rotation.bytes > 0, rotation.files > 0 else { return }
        state.written += bytes.count
        if state.written >= rotation.bytes { rotate(&state) }
    }

    /// Moves `worker.log` to `worker.log.1`, that to `.2` and so on, and begins a new one.
    private func rotate(_ state: inout State) {
        for index in stride(from: rotation.files - 1, to: 0, by: -1) {
            rename("\(path).\(index)", "\(path).\(index + 1)")
        }
        rename(path, "\(path).1")
        if state.descriptor >= 0 { close(state.descriptor) }
        state.descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
        state.written = 0
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
        if isStructured {
            let line: JSONValue = [
                "time": .string(Timestamp.now().iso8601), "level": .string(level.rawValue), "message": .string(text),
                "process": .init(Int(getpid())),
            ]
            return line.text() + "\n"
        }
        return LogFormat.line(
            format,
            [
                "asctime": date, "levelname": level.rawValue, "message": text, "name": "scriptworker",
                "process": "\(getpid())",
            ]
        ) + "\n"
    }

    /// Replaces secrets; a search that finds none, as almost always, changes nothing.
    private func hide(_ secrets: [String], in bytes: inout [UInt8]) {
        for secret in secrets {
            let pattern = Array(secret.utf8)
            var from = 0
            while let found = Self.position(of: pattern, in: bytes, from: from) {
                bytes.replaceSubrange(found..<(found + pattern.count), with: Array("********".utf8))
                from = found + 8
            }
        }
    }

    private static func position(of pattern: [UInt8], in bytes: [UInt8], from: Int) -> Int? {
        bytes.withUnsafeBytes { all in
            guard let base = all.baseAddress, from + pattern.count <= all.count else { return nil }
            guard let hit = memmem(base + from, all.count - from, pattern, pattern.count) else { return nil }
            return UnsafeRawPointer(hit) - base
        }
    }
}
