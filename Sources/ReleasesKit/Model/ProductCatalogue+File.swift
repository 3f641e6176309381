// SPDX-License-Identifier: MPL-2.0

import Glibc
import YAMLReader

extension ProductCatalogue {
    /// Reads a catalogue from a file, in YAML or JSON.
    public init(file path: String, allowsLax: Bool) throws {
        guard let file = fopen(path, "re") else {
            throw Problem(description: "\(path) cannot be read: \(String(cString: strerror(errno)))")
        }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = fread(&buffer, 1, buffer.count, file)
            if count == 0 { break }
            bytes += buffer[..<count]
        }
        guard ferror(file) == 0 else { throw Problem(description: "\(path) cannot be read") }
        try self.init(YAML.value(of: String(decoding: bytes, as: UTF8.self)), allowsLax: allowsLax)
    }
}
