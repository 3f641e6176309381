// SPDX-License-Identifier: MPL-2.0

/// The content type of an artifact, told from its name by a fixed table, so that every host gives the same answer.
public struct ContentType: Sendable, Hashable {
    /// The type, as it is sent.
    public let name: String

    /// Creates a content type from its text.
    public init(_ name: String) {
        self.name = name
    }

    /// Finds the type for a file name, looking at the overrides (`suffix: type`, with or without the dot) first.
    public init(forName name: String, overrides: [String: String] = [:]) {
        let longest = overrides.filter { name.hasSuffix($0.key.hasPrefix(".") ? $0.key : ".\($0.key)") }
            .max { $0.key.count < $1.key.count }
        if let longest {
            self.init(longest.value)
        } else if let first = Self.first.first(where: { name.hasSuffix($0.suffix) }) {
            self.init(first.type)
        } else {
            let file = name.split(separator: "/").last ?? ""
            let suffix = file.lastIndex(of: ".").map { file[file.index(after: $0)...].lowercased() }
            self.init(suffix.flatMap { Self.table[$0] } ?? "application/binary")
        }
    }

    /// Whether artifacts of this type are compressed for the way.
    public var isCompressed: Bool {
        ["text/plain", "application/json", "text/html", "application/xml"].contains(name)
    }

    /// Suffixes that are decided before the table is asked.
    private static let first: [(suffix: String, type: String)] = [
        (".tar.gz", "application/x-tar"), (".tgz", "application/x-tar"),
        (".txt", "text/plain"), (".log", "text/plain"), (".asc", "text/plain"), (".diff", "text/plain"),
        (".dmg", "application/x-apple-diskimage"), (".xml", "application/xml"), (".sig", "application/octet-stream"),
    ]

    private static let table: [String: String] = [
        "apk": "application/vnd.android.package-archive",
        "bz2": "application/x-bzip",
        "c": "text/x-csrc",
        "conf": "text/plain",
        "css": "text/css",
        "csv": "text/csv",
        "deb": "application/vnd.debian.binary-package",
        "exe": "application/x-msdos-program",
        "gif": "image/gif",
        "gz": "application/gzip",
        "htm": "text/html",
        "html": "text/html",
        "ico": "image/vnd.microsoft.icon",
        "jar": "application/java-archive",
        "jpeg": "image/jpeg",
        "jpg": "image/jpeg",
        "js": "text/javascript",
        "json": "application/json",
        "md": "text/markdown",
        "mp4": "video/mp4",
        "msi": "application/x-msi",
        "pdf": "application/pdf",
        "png": "image/png",
        "py": "text/x-python",
        "rpm": "application/x-rpm",
        "sh": "application/x-sh",
        "svg": "image/svg+xml",
        "tar": "application/x-tar",
        "wasm": "application/wasm",
        "webm": "video/webm",
        "webp": "image/webp",
        "xhtml": "application/xhtml+xml",
        "xpi": "application/x-xpinstall",
        "xz": "application/x-xz",
        "zip": "application/zip",
    ]
}
