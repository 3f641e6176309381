// SPDX-License-Identifier: MPL-2.0

import Core
import Synchronization

/// Shows what goes into a file to somebody, on a thread of its own, while more of it comes in.
///
/// The blocks that collect the bytes for the file are lent to that thread and come back, so nothing is copied or read
/// again for it, and memory stays flat: while all blocks are lent, the transfer pauses.
final class BodyWitness: Sendable {
    /// Bytes on their way; one side at a time has them.
    ///
    /// SAFETY: a block is filled by the transfer, then handed over under the lock, and not touched by the transfer until
    /// it was handed back.
    final class Block: @unchecked Sendable {
        static let size = 256 << 10
        let room: UnsafeMutableRawBufferPointer
        var count = 0

        init(size: Int = Block.size) { room = .allocate(byteCount: size, alignment: 4096) }

        deinit { room.deallocate() }

        var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: room[..<count]) }
        var rest: Int { room.count - count }

        func append(_ bytes: UnsafeRawBufferPointer) {
            UnsafeMutableRawBufferPointer(rebasing: room[count...]).copyMemory(from: bytes)
            count += bytes.count
        }
    }

    private enum Ending {
        case complete(@Sendable () -> Void)
        case abandoned
    }

    private struct State {
        var full: [Block] = []
        var free: [Block] = []
        var made = 0
        var isAwaited = false
        var ending: Ending?
    }

    private let state = Mutex(State())
    private let wakeUp = EventFD()
    private let look: HTTPRequest.Witness
    private let onRoom: @Sendable () -> Void
    private static let blocks = 4

    /// Starts the thread; `onRoom` is called on it once a block is free that was asked for in vain.
    init(_ look: @escaping HTTPRequest.Witness, onRoom: @escaping @Sendable () -> Void) {
        self.look = look
        self.onRoom = onRoom
        startThread(named: "witness") { self.run() }
    }

    /// A block to fill; nil while all are lent, and then `onRoom` follows.
    func block() -> Block? {
        state.withLock { state in
            if let block = state.free.popLast() { return block }
            guard state.made < Self.blocks else {
                state.isAwaited = true
                return nil
            }
            state.made += 1
            return Block()
        }
    }

    /// Hands over a block whose bytes are in the file.
    func show(_ block: Block) {
        state.withLock { $0.full.append(block) }
        wakeUp.signal()
    }

    /// Ends the thread when everything has been seen, and then calls back from it.
    func finish(_ then: @escaping @Sendable () -> Void) { end(.complete(then)) }

    /// Ends the thread; what was not seen yet stays unseen.
    func abandon() { end(.abandoned) }

    private func end(_ ending: Ending) {
        state.withLock { state in
            if state.ending == nil { state.ending = ending }
        }
        wakeUp.signal()
    }

    private func run() {
        // The first look is at nothing, so that somebody who has to prepare can do so at once.
        look(UnsafeRawBufferPointer(start: nil, count: 0))
        while true {
            let (blocks, ending) = state.withLock { state in
                defer { state.full = [] }
                return (state.full, state.ending)
            }
            if case .abandoned = ending { return }
            for block in blocks {
                look(block.bytes)
                block.count = 0
                let isAwaited = state.withLock { state in
                    state.free.append(block)
                    defer { state.isAwaited = false }
                    return state.isAwaited
                }
                if isAwaited { onRoom() }
            }
            guard blocks.isEmpty else { continue }
            if case .complete(let then) = ending { return then() }
            wakeUp.wait()
        }
    }
}
