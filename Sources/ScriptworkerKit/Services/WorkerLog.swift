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
        var secrets = SecretFilter()
        var written = 0
    }

    private let path: String
    private let isVerbose: Bool
    private let dateFormat: String
    private let format: String
    private let watchesFile: Bool
    let isStructured: Bool
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
            for secret in secrets.compactMap({ $0 }) { state.secrets.hide(secret) }
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

    /// What a line of this moment begins with.
    func prefix() -> [UInt8] { Array(line(.info, "").utf8.dropLast()) }

    /// Writes whole lines that have their prefixes, without the secrets in them.
    func write(raw lines: UnsafeMutableRawBufferPointer) {
        if watchesFile, !isCurrent { reopen() }
        state.withLock { state in
            state.secrets.mask(lines)
            emit(UnsafeRawBufferPointer(lines), &state)
        }
    }

    private func write(_ level: Level, _ text: String) {
        var line = Array(line(level, URLMask.masked(text)).utf8)
        line.withUnsafeMutableBytes { write(raw: $0) }
    }

    private func emit(_ bytes: UnsafeRawBufferPointer, _ state: inout State) {
        for descriptor in [state.descriptor, isVerbose ? 2 : -1] where descriptor >= 0 {
            var rest = bytes
            while let base = rest.baseAddress, !rest.isEmpty {
                let count = Glibc.write(descriptor, base, rest.count)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { break }
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
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
}
