// SPDX-License-Identifier: MPL-2.0

import Glibc
import HTTPClient

/// The beginning of a file whose transfer broke off, and what says whether the rest still belongs to it.
struct PartialDownload {
    /// The file.
    let path: String
    /// How much of it is good.
    private(set) var size = 0
    /// The server's name for exactly this content.
    private(set) var tag: String?

    init(path: String) { self.path = path }

    /// Looks at what a failed transfer left; only bytes with a strong name, sent as they are, can be continued.
    mutating func note(_ head: HTTPResponse?) {
        guard let head else { return }
        let found = head.headers["ETag"]
        let isFixed = found?.hasPrefix("\"") == true && head.headers["Content-Encoding"] == nil
        switch head.status {
        case 200 where isFixed:
            tag = found
            size = kept
        case 206 where found == tag:
            size = kept
        case 200, 206, 416:
            (size, tag) = (0, nil)
        default:
            // An error says nothing about what is there already.
            break
        }
    }

    private var kept: Int {
        var info = stat()
        return stat(path, &info) == 0 ? Int(info.st_size) : 0
    }
}

/// A complete artifact that is not at its place yet.
struct ArrivedDownload: Sendable {
    /// The file, unless everything is in memory.
    let path: String
    let bytes: [UInt8]?
    let digests: [String: String]
    let isCompressed: Bool

    /// The content as a file.
    func opened() throws -> OpenFile {
        guard let bytes else { return try OpenFile.reading(path) }
        let flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW
        let file = try OpenFile(checking: open(path, flags, 0o644), "cannot create \(path)")
        try bytes.withUnsafeBytes { try file.write($0) }
        return file
    }

    /// Gives the content its final name, replacing what has it.
    ///
    /// What is in memory was looked at already, so it is written at its place at once.
    func settle(at place: String, _ name: String) throws(ArtifactDownloader.Failure) {
        do {
            if let bytes {
                try Self.write(bytes, to: place)
            } else {
                guard rename(path, place) == 0 else { throw FileError("cannot move \(name) into place", errno) }
            }
        } catch {
            unlink(bytes == nil ? path : place)
            throw .storage("\(error)")
        }
    }

    private static func write(_ bytes: [UInt8], to place: String) throws {
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC
        var descriptor = open(place, flags, 0o644)
        if descriptor < 0, errno == EEXIST {
            unlink(place)
            descriptor = open(place, flags, 0o644)
        }
        let file = try OpenFile(checking: descriptor, "cannot create \(place)")
        try bytes.withUnsafeBytes { try file.write($0) }
    }
}
