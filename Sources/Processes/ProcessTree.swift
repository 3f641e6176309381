// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc
import Synchronization

/// Looks at the processes of this machine, to find and end what a program left behind.
public enum ProcessTree {
    /// One line of the process table.
    struct Entry: Hashable {
        var process: pid_t
        var parent: pid_t
        var started: UInt64
        var isZombie: Bool
    }

    /// Programs that somebody here started and waits for.
    ///
    /// Held across a start, so that no child is ever seen unregistered.
    static let children = Mutex<Set<pid_t>>([])

    /// Makes processes whose parent dies fall to this process, so that none can escape by detaching.
    public static func adoptOrphans() {
        _ = clinux_set_child_subreaper()
    }

    /// Collects the exit status of adopted processes that have ended.
    public static func reapOrphans() {
        let own = getpid()
        let entries = table()
        let known = children.withLock { $0 }
        for entry in entries where entry.parent == own && entry.isZombie && !known.contains(entry.process) {
            waitpid(entry.process, nil, WNOHANG)
        }
    }

    /// Collects ended orphans, unless a program runs whose own watcher does so.
    public static func reapUnlessRunning() {
        if children.withLock({ $0.isEmpty }) { reapOrphans() }
    }

    /// Ends every process of our user whose environment holds all these `NAME=value` entries; returns how many there were.
    ///
    /// For what a crashed predecessor left behind.
    public static func endMarked(_ markers: [String]) -> Int {
        let own = getpid()
        let found = table().filter { $0.process != own && !$0.isZombie && isMarked($0.process, markers) }
        for entry in found { send(SIGKILL, to: entry) }
        return found.count
    }

    /// Everything descended from a program, and orphans that count as its own; zombies that fell to us are collected on the way.
    static func descendants(of root: pid_t, orphans: OrphanRule) -> [Entry] {
        let own = getpid()
        let known = children.withLock { $0 }
        // Almost always nothing is left, which is told without a look at every process of the machine.
        if childNumbers(of: root)?.isEmpty == true, childNumbers(of: own)?.allSatisfy(known.contains) == true {
            return []
        }
        let entries = table()
        var byParent: [pid_t: [Entry]] = [:]
        for entry in entries { byParent[entry.parent, default: []].append(entry) }
        var found: [Entry] = []
        var open = byParent[root] ?? []
        for entry in byParent[own] ?? [] where !known.contains(entry.process) {
            if entry.isZombie {
                if orphans == .all { waitpid(entry.process, nil, WNOHANG) }
                continue
            }
            switch orphans {
            case .all: open.append(entry)
            case .marked(let markers): if isMarked(entry.process, markers) { open.append(entry) }
            }
        }
        while let entry = open.popLast() {
            if !entry.isZombie { found.append(entry) }
            open += byParent[entry.process] ?? []
        }
        return found
    }

    /// Signals exactly the process that was seen, never one that took over its number since.
    static func send(_ signal: Int32, to entry: Entry) {
        let descriptor = clinux_pidfd_open(entry.process)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        guard let now = self.entry(of: entry.process), now.started == entry.started else { return }
        _ = clinux_pidfd_send_signal(descriptor, signal)
    }

    /// The children of all threads of a process; nil when the kernel does not tell.
    private static func childNumbers(of process: pid_t) -> [pid_t]? {
        guard let directory = opendir("/proc/\(process)/task") else { return nil }
        defer { closedir(directory) }
        var numbers: [pid_t] = []
        while let item = readdir(directory) {
            let thread = withUnsafePointer(to: &item.pointee.d_name) { name in
                name.withMemoryRebound(to: CChar.self, capacity: 256) { atoi($0) }
            }
            guard thread > 0 else { continue }
            guard let text = contents("/proc/\(process)/task/\(thread)/children", limit: 1 << 20) else { return nil }
            for number in text.split(separator: UInt8(ascii: " ")) {
                numbers.append(number.reduce(0) { $0 &* 10 &+ pid_t($1 &- UInt8(ascii: "0")) })
            }
        }
        return numbers
    }

    private static func table() -> [Entry] {
        guard let directory = opendir("/proc") else { return [] }
        defer { closedir(directory) }
        var entries: [Entry] = []
        while let item = readdir(directory) {
            let process = withUnsafePointer(to: &item.pointee.d_name) { name in
                name.withMemoryRebound(to: CChar.self, capacity: 256) { atoi($0) }
            }
            if process > 0, let entry = entry(of: process) { entries.append(entry) }
        }
        return entries
    }

    /// Reads `stat`: the name in parentheses may contain anything, so fields are counted behind its end.
    private static func entry(of process: pid_t) -> Entry? {
        guard let text = contents("/proc/\(process)/stat", limit: 1024) else { return nil }
        guard let end = text.lastIndex(of: UInt8(ascii: ")")) else { return nil }
        let fields = text[(end + 1)...].split(separator: UInt8(ascii: " "))
        guard fields.count > 19 else { return nil }
        func number(_ index: Int) -> UInt64 {
            fields[index].reduce(0) { $0 &* 10 &+ UInt64($1 &- UInt8(ascii: "0")) }
        }
        let state = fields[0].first
        return Entry(
            process: process,
            parent: pid_t(truncatingIfNeeded: number(1)),
            started: number(19),
            isZombie: state == UInt8(ascii: "Z") || state == UInt8(ascii: "X")
        )
    }

    private static func isMarked(_ process: pid_t, _ markers: [String]) -> Bool {
        guard let text = contents("/proc/\(process)/environ", limit: 1 << 20) else { return false }
        let entries = Set(text.split(separator: 0).map { String(decoding: $0, as: UTF8.self) })
        return !markers.isEmpty && markers.allSatisfy(entries.contains)
    }

    private static func contents(_ path: String, limit: Int) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while bytes.count < limit {
            let count = read(descriptor, &buffer, buffer.count)
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        return bytes
    }
}
