// SPDX-License-Identifier: MPL-2.0

package import Core
import Glibc
package import JSON

/// Where the values of secrets come from, which configuration files only name.
package struct SecretSources {
    /// The value of an environment variable.
    package var environment: (String) -> String?
    /// The text of a file.
    package var file: (String) -> String?

    package init(environment: @escaping (String) -> String?, file: @escaping (String) -> String?) {
        self.environment = environment
        self.file = file
    }

    /// Secrets of this process: its settings, and the files it can read.
    package init(_ settings: Settings) {
        self.init(
            environment: { settings.optional($0, secret: true, "a secret that a configuration file names") },
            file: { path in Self.contents(of: path).map { String(decoding: $0, as: UTF8.self) } }
        )
    }

    /// The secret that a reference names; notes a problem if there is none.
    package func secret(_ reference: JSONValue, _ place: String, _ problems: inout [String]) -> Secret? {
        if let variable = reference["environment"]?.string {
            if let text = environment(variable), !text.isEmpty { return Secret(text) }
            problems.append("\(place): the environment variable \(variable) is not set")
            return nil
        }
        let path = reference["file"]?.string ?? ""
        guard var text = file(path) else {
            problems.append("\(place): the file \(path) cannot be read")
            return nil
        }
        while let last = text.last, last.isNewline { text.removeLast() }
        if text.isEmpty { problems.append("\(place): the file \(path) is empty") }
        return text.isEmpty ? nil : Secret(text)
    }

    /// The bytes of a configuration file; nil if it cannot be read.
    package static func contents(of path: String) -> [UInt8]? {
        guard let stream = fopen(path, "re") else { return nil }
        defer { fclose(stream) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while bytes.count < 16 << 20 {
            let count = fread(&chunk, 1, chunk.count, stream)
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return ferror(stream) == 0 ? bytes : nil
    }
}
