// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc

/// Finds what a task left in its artifact directory, without ever following a link to somewhere else.
public struct ArtifactWalk: Sendable {
    /// A regular file to upload.
    public struct Found: Sendable, Hashable {
        /// The artifact's name: the path below the directory.
        public let name: String
        /// The real file, for a link the one it leads to.
        let path: String
        let device: UInt
        let inode: UInt
        /// The size when it was found.
        public let size: Int

        /// Opens the very file that was found; throws if another has taken its place.
        public func opened() throws -> OpenFile {
            let file = try OpenFile(checking: open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), "cannot open \(name)")
            var info = stat()
            guard fstat(file.descriptor, &info) == 0, info.st_dev == device, info.st_ino == inode else {
                throw FileError("\(name) has been replaced", ESTALE)
            }
            return file
        }
    }

    /// The files, sorted by name.
    public private(set) var files: [Found] = []
    /// What was left out, and why: one line each.
    public private(set) var problems: [String] = []
    private let roots: [String]

    /// Walks a directory; links may lead to files inside it or inside one of the other directories.
    ///
    /// Throws when the directory itself is missing or no directory.
    public init(_ directory: String, linksMayLeadInto others: [String] = [], leavingOut ignored: Set<String> = [])
        throws
    {
        roots = ([directory] + others).compactMap(Self.resolved)
        let top = try OpenFile(
            checking: open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
            "cannot read the artifact directory"
        )
        guard let real = Self.resolved(top.path) else { throw FileError("cannot find the artifact directory", errno) }
        walk(top, real, prefix: "")
        files.removeAll { ignored.contains($0.name) }
        files.sort { $0.name < $1.name }
    }

    private mutating func walk(_ directory: OpenFile, _ path: String, prefix: String) {
        guard let names = Self.names(in: directory) else {
            problems.append("cannot read the directory \(Self.printable(prefix))")
            return
        }
        for bytes in names.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
            guard let name = Self.name(bytes, prefix: prefix) else {
                let shown = Self.printable(prefix + String(decoding: bytes, as: UTF8.self))
                problems.append("not uploading \(shown): its name is not printable ASCII of at most 990 bytes")
                continue
            }
            visit(name, String(decoding: bytes, as: UTF8.self), in: directory, path)
        }
    }

    private mutating func visit(_ name: String, _ entry: String, in directory: OpenFile, _ path: String) {
        var info = stat()
        guard fstatat(directory.descriptor, entry, &info, AT_SYMLINK_NOFOLLOW) == 0 else { return }
        switch info.st_mode & S_IFMT {
        case S_IFREG:
            add(name, "\(path)/\(entry)", info)
        case S_IFDIR:
            let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
            let descriptor = openat(directory.descriptor, entry, flags)
            guard descriptor >= 0 else {
                problems.append("cannot read the directory \(name)")
                return
            }
            walk(OpenFile(adopting: descriptor), "\(path)/\(entry)", prefix: name + "/")
        case S_IFLNK:
            follow(name, "\(path)/\(entry)")
        default:
            problems.append("not uploading \(name): not a regular file")
        }
    }

    private mutating func follow(_ name: String, _ path: String) {
        guard let target = Self.resolved(path) else {
            problems.append("not uploading \(name): a link to nothing")
            return
        }
        guard roots.contains(where: { target.hasPrefix($0 + "/") }) else {
            problems.append("not uploading \(name): a link that leads out of the task's directories")
            return
        }
        var info = stat()
        guard lstat(target, &info) == 0, info.st_mode & S_IFMT == S_IFREG else {
            problems.append("not uploading \(name): a link to something that is not a regular file")
            return
        }
        add(name, target, info)
    }

    private mutating func add(_ name: String, _ path: String, _ info: stat) {
        guard access(path, R_OK) == 0 else {
            problems.append("not uploading \(name): not readable")
            return
        }
        files.append(Found(name: name, path: path, device: info.st_dev, inode: info.st_ino, size: Int(info.st_size)))
    }

    private static func name(_ entry: [UInt8], prefix: String) -> String? {
        guard prefix.utf8.count + entry.count <= 990, entry.allSatisfy({ (0x20...0x7e).contains($0) }) else {
            return nil
        }
        return prefix + String(decoding: entry, as: UTF8.self)
    }

    private static func printable(_ text: String) -> String {
        String(text.unicodeScalars.prefix(200).map { $0.isASCII && $0.value >= 0x20 ? Character($0) : "?" })
    }

    private static func resolved(_ path: String) -> String? {
        guard let real = realpath(path, nil) else { return nil }
        defer { free(real) }
        return String(cString: real)
    }

    private static func names(in directory: OpenFile) -> [[UInt8]]? {
        let copy = fcntl(directory.descriptor, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0, let stream = fdopendir(copy) else { return nil }
        defer { closedir(stream) }
        var names: [[UInt8]] = []
        while let item = readdir(stream) {
            let name = withUnsafePointer(to: &item.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: UInt8.self, capacity: 256) { bytes in
                    Array(UnsafeBufferPointer(start: bytes, count: strlen(UnsafePointer(OpaquePointer(bytes)))))
                }
            }
            if name != Array(".".utf8), name != Array("..".utf8) { names.append(name) }
        }
        return names
    }
}
