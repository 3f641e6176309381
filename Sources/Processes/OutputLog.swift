// SPDX-License-Identifier: MPL-2.0

import Glibc
import Synchronization

/// A log file that takes a program's output byte for byte, up to a limit, and whole lines of our own between.
///
/// The limit binds the program only: what it prints beyond is dropped after one notice, while notes always get through. A full disk
/// never stops the program either; ``failure`` then tells the reason.
public final class OutputLog: Sendable {
    /// Receives what the program printed, in order, on the thread that reads it.
    public typealias Mirror = @Sendable (UnsafeRawBufferPointer) -> Void

    private struct State {
        var accepted = 0
        var isFull = false
        var endsLine = true
        var failure: Int32 = 0
    }

    /// The open file; it stays readable even if somebody removes its name.
    public let descriptor: Int32
    private let byteLimit: Int
    private let mirror: Mirror?
    private let state = Mutex(State())

    /// Creates (or continues) the file at a path whose directory exists.
    public init(path: String, byteLimit: Int = .max, mirror: Mirror? = nil) throws(ProcessesError) {
        let descriptor = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0o644)
        guard descriptor >= 0 else { throw ProcessesError(.file, "cannot open \(path)") }
        self.descriptor = descriptor
        self.byteLimit = byteLimit
        self.mirror = mirror
    }

    deinit { close(descriptor) }

    /// The system's error number of the first write that failed, or nil.
    public var failure: Int32? {
        state.withLock { $0.failure == 0 ? nil : $0.failure }
    }

    /// Adds a line of ours, beginning a new line first if the program left one unfinished.
    public func note(_ line: String) {
        // The lock spans the write because the order in the file is the point; a write to a regular file is short.
        state.withLock { state in
            var text = line + "\n"
            if !state.endsLine { text = "\n" + text }
            text.withUTF8 { write(UnsafeRawBufferPointer($0), &state) }
        }
    }

    /// Adds what the program printed.
    func append(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        mirror?(bytes)
        let overflowed = state.withLock { state in
            let room = max(0, byteLimit - state.accepted)
            if room > 0 { write(UnsafeRawBufferPointer(rebasing: bytes.prefix(room)), &state) }
            state.accepted += min(room, bytes.count)
            let overflows = bytes.count > room && !state.isFull
            if overflows { state.isFull = true }
            return overflows
        }
        if overflowed { note("the log has reached its limit of \(byteLimit) bytes; further output is discarded") }
    }

    private func write(_ bytes: UnsafeRawBufferPointer, _ state: inout State) {
        var rest = bytes
        while let base = rest.baseAddress, !rest.isEmpty {
            let count = Glibc.write(descriptor, base, rest.count)
            if count < 0 {
                if errno == EINTR { continue }
                if state.failure == 0 { state.failure = errno }
                return
            }
            rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(count))
        }
        if let last = bytes.last { state.endsLine = last == UInt8(ascii: "\n") }
    }
}
