// SPDX-License-Identifier: MPL-2.0

/// Decides how settled deliveries of one channel are told to the broker in few frames.
///
/// Delivery tags of a channel count up from 1. All tags up to `floor` are told. An acknowledgement with the `multiple`
/// flag covers every untold tag up to its own, so it may be sent only for a tag below which nothing is still being handled.
///
///     tag      1 2 3 4 5 6 7 8
///     state    · · a a _ a · _        · told   a acknowledged, not told   _ being handled
///                  ───              → ack(4, multiple)
///                        ─          → ack(6)
struct AckWindow {
    private enum Mark: UInt8 {
        case handling, acked, told
    }

    /// A frame to send.
    enum Frame: Equatable {
        case ack(UInt64, multiple: Bool)
        case nack(UInt64, requeue: Bool)
    }

    /// All tags up to this one are told.
    private(set) var floor: UInt64 = 0

    /// The states of the tags after `floor`; `start` is the index of the first one that counts.
    private var marks: [Mark] = []
    private var start = 0

    /// The tags acknowledged since the last `flush`.
    private var fresh: [UInt64] = []

    /// How many deliveries are known and not told.
    var outstanding: Int { marks.count - start }

    /// Notes a delivery that has arrived.
    ///
    /// Returns whether the tag was the expected one; anything else breaks the protocol.
    mutating func deliver(_ tag: UInt64) -> Bool {
        guard tag == floor + UInt64(marks.count - start) + 1 else { return false }
        marks.append(.handling)
        return true
    }

    /// Notes that a delivery was handled.
    mutating func acknowledge(_ tag: UInt64) {
        guard let index = index(of: tag), marks[index] == .handling else { return }
        marks[index] = .acked
        fresh.append(tag)
    }

    /// Notes that a delivery is refused; answers the frame to send now.
    mutating func refuse(_ tag: UInt64, requeue: Bool) -> Frame? {
        guard let index = index(of: tag), marks[index] == .handling else { return nil }
        marks[index] = .told
        return .nack(tag, requeue: requeue)
    }

    /// Hands the frames for everything acknowledged since the last time to `send`.
    mutating func flush(_ send: (Frame) throws -> Void) rethrows {
        var tag = floor
        var lastAcked: UInt64?
        var ackedCount = 0
        while start < marks.count, marks[start] != .handling {
            tag += 1
            if marks[start] == .acked {
                lastAcked = tag
                ackedCount += 1
            }
            start += 1
        }
        floor = tag
        compact()
        if let lastAcked {
            try send(.ack(lastAcked, multiple: ackedCount > 1))
        }
        defer { fresh.removeAll(keepingCapacity: true) }
        for tag in fresh where tag > floor {
            guard let index = index(of: tag) else { continue }
            marks[index] = .told
            try send(.ack(tag, multiple: false))
        }
    }

    private func index(of tag: UInt64) -> Int? {
        guard tag > floor, tag - floor <= UInt64(marks.count - start) else { return nil }
        return start + Int(tag - floor) - 1
    }

    private mutating func compact() {
        if start == marks.count {
            marks.removeAll(keepingCapacity: true)
            start = 0
        } else if start > 1024 {
            marks.removeFirst(start)
            start = 0
        }
    }
}
