// SPDX-License-Identifier: MPL-2.0

/// Numbers for names, so that what belongs to a name is an array access away.
struct NameTable: Sendable {
    private(set) var names: [String] = []
    private var hashes: [UInt64] = []
    /// Open addressing: the number of a name, or -1; always at least half empty.
    private var buckets: [Int32] = []

    init() {}

    init(_ names: [String]) {
        for name in names { _ = number(of: name) }
    }

    /// The number of a name, a new one when it has none.
    mutating func number(of name: String) -> Int32 {
        let bytes = name.utf8.span
        let hash = Self.hash(bytes)
        return find(bytes, hash) ?? add(name, hash)
    }

    /// The number of the name that stands somewhere in a text.
    mutating func number(of range: Range<Int>, in source: [UInt8]) -> Int32 {
        let bytes = source.span.extracting(range)
        let hash = Self.hash(bytes)
        return find(bytes, hash) ?? add(String(decoding: source[range], as: UTF8.self), hash)
    }

    /// The number of the name that stands somewhere in a text of ASCII characters.
    mutating func number(of range: Range<Int>, in text: String) -> Int32 {
        let bytes = text.utf8.span.extracting(range)
        let hash = Self.hash(bytes)
        if let number = find(bytes, hash) { return number }
        let start = text.utf8.index(text.startIndex, offsetBy: range.lowerBound)
        return add(String(text[start..<text.utf8.index(start, offsetBy: range.count)]), hash)
    }

    func existingNumber(of name: String) -> Int32? {
        let bytes = name.utf8.span
        return find(bytes, Self.hash(bytes))
    }

    private func find(_ name: Span<UInt8>, _ hash: UInt64) -> Int32? {
        guard !buckets.isEmpty else { return nil }
        var bucket = Int(truncatingIfNeeded: hash) & (buckets.count - 1)
        while case let number = buckets[bucket], number >= 0 {
            if hashes[Int(number)] == hash, Self.isEqual(names[Int(number)].utf8.span, name) { return number }
            bucket = (bucket + 1) & (buckets.count - 1)
        }
        return nil
    }

    private mutating func add(_ name: String, _ hash: UInt64) -> Int32 {
        names.append(name)
        hashes.append(hash)
        let number = Int32(names.count - 1)
        if names.count * 2 > buckets.count {
            buckets = [Int32](repeating: -1, count: max(64, buckets.count * 2))
            for (number, hash) in hashes.enumerated() { place(Int32(number), hash) }
        } else {
            place(number, hash)
        }
        return number
    }

    private mutating func place(_ number: Int32, _ hash: UInt64) {
        var bucket = Int(truncatingIfNeeded: hash) & (buckets.count - 1)
        while buckets[bucket] >= 0 { bucket = (bucket + 1) & (buckets.count - 1) }
        buckets[bucket] = number
    }

    private static func isEqual(_ first: Span<UInt8>, _ second: Span<UInt8>) -> Bool {
        guard first.count == second.count else { return false }
        for index in first.indices where first[index] != second[index] { return false }
        return true
    }

    /// FNV-1a, mixed once more because the low bits choose the bucket.
    private static func hash(_ bytes: Span<UInt8>) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for index in bytes.indices { hash = (hash ^ UInt64(bytes[index])) &* 0x100_0000_01B3 }
        return hash ^ hash >> 32
    }
}

enum Identifier {
    static func isStart(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x41...0x5A, 0x61...0x7A, 0x5F: true
        default: false
        }
    }

    static func isPart(_ byte: UInt8) -> Bool {
        isStart(byte) || 0x30...0x39 ~= byte
    }

    static func isValid(_ text: String) -> Bool {
        isValid(text.utf8.span)
    }

    static func isValid(_ bytes: Span<UInt8>) -> Bool {
        guard !bytes.isEmpty, isStart(bytes[0]) else { return false }
        for index in bytes.indices where !isPart(bytes[index]) { return false }
        return true
    }

    /// Letters and digits only: what follows a dot in the place of an error, or a dollar in a reserved key.
    static func isPlain(_ text: Substring) -> Bool {
        guard let first = text.utf8.first, isStart(first), first != 0x5F else { return false }
        return text.utf8.allSatisfy { isPart($0) && $0 != 0x5F }
    }
}
