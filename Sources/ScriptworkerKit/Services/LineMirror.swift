// SPDX-License-Identifier: MPL-2.0

import Glibc
import Synchronization

/// Copies what a script prints into the worker's log, with a prefix before each line.
///
/// Lines are put together in one buffer, which is searched for secrets and written as a whole: a script may print hundreds of megabytes.
final class LineMirror: Sendable {
    // SAFETY: the buffer belongs to the state, so it is only reached under the lock around it.
    private struct State: @unchecked Sendable {
        let buffer: UnsafeMutableRawBufferPointer
        var used = 0
        /// The beginning of a line whose end has not come yet.
        var carried: [UInt8] = []
    }

    private let log: WorkerLog
    private let state: Mutex<State>
    /// A line without an end is broken here, so that it is not kept growing for ever.
    private static let longestLine = 64 << 10
    private static let piece = 256 << 10

    init(_ log: WorkerLog) {
        self.log = log
        let room = Self.piece + 2 * Self.longestLine
        state = Mutex(State(buffer: .allocate(byteCount: room, alignment: 64)))
    }

    deinit {
        state.withLock { state in
            endLine(&state, log.prefix())
            flush(&state)
            state.buffer.deallocate()
        }
    }

    /// Takes a piece of output of any length.
    func append(_ bytes: UnsafeRawBufferPointer) {
        state.withLock { state in
            let prefix = log.prefix()
            var rest = bytes
            while !rest.isEmpty {
                lines(UnsafeRawBufferPointer(rebasing: rest.prefix(Self.piece)), &state, prefix)
                rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst(Self.piece))
            }
            flush(&state)
        }
    }

    private func lines(_ bytes: UnsafeRawBufferPointer, _ state: inout State, _ prefix: [UInt8]) {
        var rest = bytes
        while let base = rest.baseAddress, let hit = memchr(base, 10, rest.count) {
            let count = UnsafeRawPointer(hit) - base + 1
            add(UnsafeRawBufferPointer(rebasing: rest[..<count]), &state, prefix)
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
        state.carried.append(contentsOf: rest)
        if state.carried.count > Self.longestLine { endLine(&state, prefix) }
    }

    private func endLine(_ state: inout State, _ prefix: [UInt8]) {
        guard !state.carried.isEmpty else { return }
        [UInt8(ascii: "\n")].withUnsafeBytes { add($0, &state, prefix) }
    }

    /// Adds the end of a line, its end included, behind what was carried of it.
    private func add(_ end: UnsafeRawBufferPointer, _ state: inout State, _ prefix: [UInt8]) {
        if log.isStructured {
            let text = state.carried + end.dropLast()
            state.carried.removeAll(keepingCapacity: true)
            return log.info(String(decoding: text, as: UTF8.self))
        }
        if prefix.count + state.carried.count + end.count > state.buffer.count - state.used { flush(&state) }
        prefix.withUnsafeBytes { Self.copy($0, &state) }
        if !state.carried.isEmpty {
            state.carried.withUnsafeBytes { Self.copy($0, &state) }
            state.carried.removeAll(keepingCapacity: true)
        }
        Self.copy(end, &state)
    }

    private static func copy(_ bytes: UnsafeRawBufferPointer, _ state: inout State) {
        let count = min(bytes.count, state.buffer.count - state.used)
        guard count > 0, let source = bytes.baseAddress, let base = state.buffer.baseAddress else { return }
        memcpy(base + state.used, source, count)
        state.used += count
    }

    private func flush(_ state: inout State) {
        guard state.used > 0 else { return }
        log.write(raw: UnsafeMutableRawBufferPointer(rebasing: state.buffer[..<state.used]))
        state.used = 0
    }
}
