// SPDX-License-Identifier: MPL-2.0

import Glibc

/// What the kernel knows about this process.
enum ProcessMetrics {
    /// Memory, processor time, threads and descriptors in the text format.
    static func exposition() -> String {
        var text = ""
        func add(_ name: String, _ kind: String, _ value: String) {
            text += "# TYPE \(name) \(kind)\n\(name) \(value)\n"
        }
        var usage = rusage()
        if getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 {
            let seconds = [usage.ru_utime, usage.ru_stime].reduce(0) {
                $0 + Double($1.tv_sec) + Double($1.tv_usec) / 1e6
            }
            add("process_cpu_seconds_total", "counter", "\(seconds)")
        }
        // Fields after the parenthesised name, counted from the third (proc(5)).
        let stat = read("/proc/self/stat")
        if let close = stat.lastIndex(of: ")") {
            let fields = stat[stat.index(after: close)...].split(separator: " ")
            if fields.count > 21, let pages = Int(fields[21]), let ticks = Double(fields[19]) {
                add("process_resident_memory_bytes", "gauge", "\(pages * sysconf(Int32(_SC_PAGESIZE)))")
                add("process_threads", "gauge", String(fields[17]))
                if let boot = bootTime() {
                    add("process_start_time_seconds", "gauge", "\(boot + ticks / Double(sysconf(Int32(_SC_CLK_TCK))))")
                }
            }
        }
        if let directory = opendir("/proc/self/fd") {
            var count = -3  // ".", ".." and the directory itself
            while readdir(directory) != nil { count += 1 }
            closedir(directory)
            add("process_open_fds", "gauge", "\(count)")
        }
        return text
    }

    private static func bootTime() -> Double? {
        let line = read("/proc/stat").split(separator: "\n").first { $0.hasPrefix("btime ") }
        return line.flatMap { Double($0.dropFirst(6)) }
    }

    private static func read(_ path: String) -> String {
        guard let stream = fopen(path, "re") else { return "" }
        defer { fclose(stream) }
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let count = fread(&bytes, 1, bytes.count, stream)
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
