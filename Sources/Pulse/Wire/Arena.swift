// SPDX-License-Identifier: MPL-2.0

import CRabbitMQ

/// Scratch memory for the arguments of one call into the C library.
///
/// Everything handed out lives until `reset`. Belongs to the connection's thread.
struct Arena: ~Copyable {
    private var blocks: [UnsafeMutableRawBufferPointer] = []
    private var used = 0

    init() {
        blocks.append(.allocate(byteCount: 16384, alignment: 16))
    }

    deinit {
        for block in blocks { block.deallocate() }
    }

    /// Takes everything back.
    mutating func reset() {
        used = 0
        guard blocks.count > 1 else { return }
        // Keep the last block, the largest, so that a steady size needs no allocation.
        for block in blocks.dropLast() { block.deallocate() }
        blocks.removeFirst(blocks.count - 1)
    }

    /// Room for `count` bytes, aligned for anything.
    mutating func room(_ count: Int) -> UnsafeMutableRawPointer {
        let size = (count + 15) & ~15
        if used + size > blocks[blocks.count - 1].count {
            blocks.append(.allocate(byteCount: max(size, 2 * blocks[blocks.count - 1].count), alignment: 16))
            used = 0
        }
        defer { used += size }
        let block = blocks[blocks.count - 1]
        return UnsafeMutableRawPointer(block.baseAddress.unsafelyUnwrapped) + used
    }

    /// The bytes of a text, as the library wants them.
    mutating func bytes(_ text: String) -> amqp_bytes_t {
        var text = text
        return text.withUTF8 { source in
            guard let base = source.baseAddress, !source.isEmpty else { return amqp_bytes_t(len: 0, bytes: nil) }
            let target = room(source.count)
            target.copyMemory(from: base, byteCount: source.count)
            return amqp_bytes_t(len: source.count, bytes: target)
        }
    }

    /// A text that ends with a zero byte.
    mutating func cString(_ text: String) -> UnsafePointer<CChar> {
        let utf8 = text.utf8
        let target = room(utf8.count + 1).bindMemory(to: CChar.self, capacity: utf8.count + 1)
        var index = 0
        for byte in utf8 {
            target[index] = CChar(bitPattern: byte)
            index += 1
        }
        target[index] = 0
        return UnsafePointer(target)
    }

    /// A table of fields.
    mutating func table(_ fields: [(String, Field)]) -> amqp_table_t {
        guard !fields.isEmpty else { return amqp_table_t(num_entries: 0, entries: nil) }
        let entries = room(fields.count * MemoryLayout<amqp_table_entry_t>.stride)
            .bindMemory(to: amqp_table_entry_t.self, capacity: fields.count)
        for (index, (key, field)) in fields.enumerated() {
            let value = self.value(field)
            (entries + index).initialize(to: amqp_table_entry_t(key: bytes(key), value: value))
        }
        return amqp_table_t(num_entries: Int32(fields.count), entries: entries)
    }

    /// A table with one field, an array of texts.
    mutating func table(_ key: String, texts: [String]) -> amqp_table_t {
        let values = room(max(1, texts.count) * MemoryLayout<amqp_field_value_t>.stride)
            .bindMemory(to: amqp_field_value_t.self, capacity: max(1, texts.count))
        for (index, text) in texts.enumerated() {
            (values + index).initialize(to: value(.text(text)))
        }
        let entries = room(MemoryLayout<amqp_table_entry_t>.stride)
            .bindMemory(to: amqp_table_entry_t.self, capacity: 1)
        var array = amqp_field_value_t()
        array.kind = crabbitmq_field_array
        array.value.array = amqp_array_t(num_entries: Int32(texts.count), entries: values)
        entries.initialize(to: amqp_table_entry_t(key: bytes(key), value: array))
        return amqp_table_t(num_entries: 1, entries: entries)
    }

    private mutating func value(_ field: Field) -> amqp_field_value_t {
        var result = amqp_field_value_t()
        switch field {
        case .flag(let flag):
            result.kind = crabbitmq_field_boolean
            result.value.boolean = flag ? 1 : 0
        case .number(let number):
            result.kind = crabbitmq_field_i64
            result.value.i64 = number
        case .text(let text):
            result.kind = crabbitmq_field_utf8
            result.value.bytes = bytes(text)
        case .table(let fields):
            result.kind = crabbitmq_field_table
            result.value.table = table(fields)
        }
        return result
    }

    /// A value in a table.
    enum Field {
        case flag(Bool)
        case number(Int64)
        case text(String)
        case table([(String, Field)])
    }
}

extension String {
    /// A copy of bytes of the library; anything that is not UTF-8 is repaired.
    init(_ bytes: amqp_bytes_t) {
        self.init(decoding: UnsafeRawBufferPointer(start: bytes.bytes, count: bytes.len), as: UTF8.self)
    }
}

/// A text that usually repeats, kept so that a repetition costs a comparison instead of an allocation.
struct RememberedText {
    private(set) var text = ""

    /// The text for the bytes, the last one if they are equal.
    mutating func text(_ bytes: amqp_bytes_t) -> String {
        let raw = UnsafeRawBufferPointer(start: bytes.bytes, count: bytes.len)
        let isSame = text.utf8.withContiguousStorageIfAvailable { known in
            known.count == raw.count && UnsafeRawBufferPointer(known).elementsEqual(raw)
        }
        if isSame != true { text = String(bytes) }
        return text
    }
}
