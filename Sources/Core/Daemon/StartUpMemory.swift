// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc

/// What only the start of a process needs: its code is let go and its freed heap goes back to the system.
///
/// Reading configuration, registering types and opening connections touch many pages of code once. They are clean copies
/// of files; when one is needed again after all, the kernel maps it again from its cache.
enum StartUpMemory {
    static func release() {
        _ = malloc_trim(0)
        for range in codeRanges() {
            guard let start = UnsafeMutableRawPointer(bitPattern: range.lowerBound) else { continue }
            // SAFETY: the ranges are executable and not writable, so no page of them differs from its file.
            madvise(start, range.count, MADV_DONTNEED)
        }
    }

    /// Where code of files is mapped; empty if the system does not tell.
    private static func codeRanges() -> [Range<UInt>] {
        guard let file = fopen("/proc/self/maps", "re") else { return [] }
        defer { fclose(file) }
        var ranges: [Range<UInt>] = []
        var line = [CChar](repeating: 0, count: 4352)
        while fgets(&line, Int32(line.count), file) != nil {
            let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            // 55d6e6351000-55d6e7d81000 r-xp 00000000 08:01 1234   /usr/bin/example
            let words = text.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
            guard words.count == 6, words[1] == "r-xp", words[5].contains("/") else { continue }
            let ends = words[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
            if ends.count == 2, ends[0] < ends[1] { ranges.append(ends[0]..<ends[1]) }
        }
        return ranges
    }
}
