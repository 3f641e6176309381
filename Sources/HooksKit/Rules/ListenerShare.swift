// SPDX-License-Identifier: MPL-2.0

/// Which listeners consume which hook's queue.
///
/// Each hook has two of them, chosen by rendezvous hashing: every listener comes to the same answer by itself, and when
/// one appears or dies, only the hooks concerned move. Two, so that nothing waits when one dies. Correctness does not
/// hang on it: a queue may be consumed by any number of listeners.
struct ListenerShare: Sendable, Equatable {
    let listener: String
    let all: Set<String>

    private static let replicas = 2

    /// Whether the listener is one of those that consume the hook's queue.
    func includes(_ name: HookName) -> Bool {
        guard all.count > Self.replicas else { return true }
        let mine = Self.weight(listener, name)
        var better = 0
        for other in all where other != listener {
            let weight = Self.weight(other, name)
            if weight > mine || weight == mine && other > listener { better += 1 }
        }
        return better < Self.replicas
    }

    /// FNV-1a with a final mixing; the same in every process, which `Hasher` is not.
    private static func weight(_ listener: String, _ name: HookName) -> UInt64 {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for text in [listener, name.group, name.hook] {
            for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
            hash = (hash ^ 0xff) &* 0x100_0000_01b3
        }
        hash ^= hash >> 33
        hash &*= 0xff51_afd7_ed55_8ccd
        hash ^= hash >> 33
        hash &*= 0xc4ce_b9fe_1a85_ec53
        return hash ^ hash >> 33
    }
}
