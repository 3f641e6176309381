// SPDX-License-Identifier: MPL-2.0

import Glibc
import WorkerKit

/// The directories of a task: emptied before and after each one, without ever following a link.
enum TaskDirectories {
    /// Empties a directory, or makes it; a directory that is a link's target or a mount stays, only its content goes.
    ///
    /// Marked, it holds the marker alone afterwards.
    static func clean(_ path: String, isMarked: Bool = false) throws {
        try make(path)
        let flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC
        let descriptor = open(path, flags)
        guard descriptor >= 0 else { throw FileError("cannot open \(path)", errno) }
        try empty(OpenFile(adopting: descriptor), shown: path)
        if isMarked { try mark(path) }
    }

    /// The file that tells a worker's directory from one that somebody named by mistake.
    static let marker = ".scriptworker-directory"

    /// Leaves the marker in a directory.
    static func mark(_ path: String) throws { try FileText.write([], to: "\(path)/\(marker)") }

    /// Whether a directory may be emptied: it has our marker, nothing at all, or does not exist.
    static func mayBeOurs(_ path: String) -> Bool {
        guard let stream = opendir(path) else { return errno == ENOENT }
        defer { closedir(stream) }
        var isEmpty = true
        while let item = readdir(stream) {
            let name = withUnsafePointer(to: &item.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name == marker { return true }
            if name != ".", name != ".." { isEmpty = false }
        }
        return isEmpty
    }

    /// Makes a directory and those above it.
    static func make(_ path: String) throws {
        var info = stat()
        if stat(path, &info) == 0, info.st_mode & S_IFMT == S_IFDIR { return }
        if mkdir(path, 0o755) == 0 { return }
        if lstat(path, &info) == 0 { unlink(path) }
        let parent = path.split(separator: "/").dropLast().joined(separator: "/")
        if !parent.isEmpty { try make((path.hasPrefix("/") ? "/" : "") + parent) }
        guard mkdir(path, 0o755) == 0 || errno == EEXIST else { throw FileError("cannot make \(path)", errno) }
    }

    private static func empty(_ directory: OpenFile, shown: String) throws {
        fchmod(directory.descriptor, 0o755)
        let copy = openat(directory.descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard copy >= 0, let stream = fdopendir(copy) else { throw FileError("cannot read \(shown)", errno) }
        defer { closedir(stream) }
        while let item = readdir(stream) {
            // The name is kept as bytes: it need not be text.
            let name = withUnsafePointer(to: &item.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { pointer in
                    Array(UnsafeBufferPointer(start: pointer, count: strlen(pointer) + 1))
                }
            }
            if name == [46, 0] || name == [46, 46, 0] { continue }
            try remove(name, in: directory, shown: shown)
        }
    }

    private static func remove(_ name: [CChar], in directory: OpenFile, shown: String) throws {
        if unlinkat(directory.descriptor, name, 0) == 0 || errno == ENOENT { return }
        guard errno == EISDIR || errno == EPERM else { throw FileError("cannot remove a file in \(shown)", errno) }
        let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
        var descriptor = openat(directory.descriptor, name, flags)
        if descriptor < 0, errno == EACCES {
            fchmodat(directory.descriptor, name, 0o700, 0)
            descriptor = openat(directory.descriptor, name, flags)
        }
        guard descriptor >= 0 else { throw FileError("cannot open a directory in \(shown)", errno) }
        try empty(OpenFile(adopting: descriptor), shown: shown)
        guard unlinkat(directory.descriptor, name, AT_REMOVEDIR) == 0 else {
            throw FileError("cannot remove a directory in \(shown)", errno)
        }
    }
}
