// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc

/// A kernel counter that wakes a thread sleeping in `poll`.
public final class EventFD: Sendable {
    /// The descriptor to include in a set for `poll`; readable once signalled.
    public let descriptor: Int32

    /// Creates a counter at zero.
    public init() {
        descriptor = eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
        precondition(descriptor >= 0, "cannot create an event descriptor: error \(errno)")
    }

    deinit {
        close(descriptor)
    }

    /// Makes the descriptor readable; signals before a ``drain()`` coalesce.
    public func signal() {
        var one: UInt64 = 1
        _ = write(descriptor, &one, 8)
    }

    /// Makes the descriptor unreadable again and tells whether it had been signalled.
    @discardableResult
    public func drain() -> Bool {
        var count: UInt64 = 0
        return read(descriptor, &count, 8) == 8
    }

    /// Blocks the calling thread until signalled or until the milliseconds are over (-1: for ever), then drains.
    @discardableResult
    public func wait(milliseconds: Int32 = -1) -> Bool {
        var set = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        _ = poll(&set, 1, milliseconds)
        return drain()
    }
}
