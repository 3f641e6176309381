// SPDX-License-Identifier: MPL-2.0

import Glibc
import Synchronization

/// Standard output, where a daemon's log goes: whole texts, without interleaving.
public enum StandardOutput {
    private static let stream = LockedStream(1)

    /// Writes a text as a whole, whatever other threads write at the same time.
    public static func write(_ text: String) {
        stream.write(text)
    }
}

/// Standard error, where a command complains about its arguments and settings: whole texts, without interleaving.
public enum StandardError {
    private static let stream = LockedStream(2)

    /// Writes a text as a whole, whatever other threads write at the same time.
    public static func write(_ text: String) {
        stream.write(text)
    }
}

/// A descriptor that one thread at a time writes to.
private final class LockedStream: Sendable {
    private let descriptor: CInt
    private let lock = Mutex<Void>(())

    init(_ descriptor: CInt) {
        self.descriptor = descriptor
    }

    func write(_ text: String) {
        var text = text
        lock.withLock { _ in
            text.withUTF8 { bytes in
                var rest = UnsafeRawBufferPointer(bytes)
                while let base = rest.baseAddress, !rest.isEmpty {
                    let count = Glibc.write(descriptor, base, rest.count)
                    if count < 0, errno == EINTR { continue }
                    guard count > 0 else { return }
                    rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                }
            }
        }
    }
}
