// SPDX-License-Identifier: MPL-2.0
import Crypto
import Glibc
public import Schedules
import Taskcluster

/// Files below one directory, written completely or not at all.
struct BlobFiles: Sendable {
    /// The directory of all files.
    let directory: String

    /// Uses a directory, which is made when the first file comes.
    init(directory: String) {
        self.directory = directory.hasSuffix("/") ? String(directory.dropLast()) : directory
    }

    /// The absolute path of a stored file.
    func path(_ file: String) -> String { "\(directory)/\(file)" }

    /// Removes a file; a missing one is no problem.
    func remove(_ file: String) {
        unlink(path(file))
    }

    /// A whole file of a known length; nil if it is gone or of another length.
    static func read(_ path: String, length: Int) -> [UInt8]? {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        let bytes = [UInt8](unsafeUninitializedCapacity: length) { buffer, count in
            while count < length, let base = buffer.baseAddress {
                let more = Glibc.read(descriptor, base + count, length - count)
                if more < 0, errno == EINTR { continue }
                guard more > 0 else { return }
                count += more
            }
        }
        return bytes.count == length ? bytes : nil
    }

    /// Opens a new file to write to.
    func open(withSHA512: Bool = false) throws(BlobError) -> BlobWriter {
        let name = Slugid.make()
        let shard = String(name.prefix(2))
        for folder in [directory, temporary, "\(directory)/\(shard)"] { mkdir(folder, 0o700) }
        let part = "\(temporary)/\(name)"
        let descriptor = Glibc.open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw BlobError(message: "cannot create a file in the blob directory") }
        let file = "\(shard)/\(name)"
        return BlobWriter(file: file, part: part, path: path(file), descriptor: descriptor, withSHA512: withSHA512)
    }

    /// Removes what uploads left behind that a crash cut off, if it is older than any upload can be.
    func removeRemains() {
        guard let folder = opendir(temporary) else { return }
        defer { closedir(folder) }
        let oldest = time(nil) - 24 * 3600
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { tuple in
                tuple.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            var facts = stat()
            let path = "\(temporary)/\(name)"
            if stat(path, &facts) == 0, facts.st_mode & S_IFMT == S_IFREG, facts.st_mtim.tv_sec < oldest {
                unlink(path)
            }
        }
    }

    /// Files on their way; on the same file system, so that a rename completes them.
    private var temporary: String { "\(directory)/tmp" }
}

/// A failure of the file system below the blob store.
public struct BlobError: Error, Sendable, CustomStringConvertible {
    /// What failed.
    public let message: String
    /// The message.
    public var description: String { message }
}

/// A file on its way; discard it unless it became complete.
struct BlobWriter: ~Copyable {
    let file: String
    private let part: String
    private let path: String
    private let descriptor: Int32
    private var digest = SHA256()
    private var longDigest: SHA512?
    private(set) var length = 0

    init(file: String, part: String, path: String, descriptor: Int32, withSHA512: Bool) {
        self.file = file
        self.part = part
        self.path = path
        self.descriptor = descriptor
        longDigest = withSHA512 ? SHA512() : nil
    }

    mutating func write(_ bytes: [UInt8]) throws(BlobError) {
        digest.update(data: bytes)
        longDigest?.update(data: bytes)
        length += bytes.count
        var done = 0
        while done < bytes.count {
            let written = bytes.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress?.advanced(by: done), bytes.count - done)
            }
            if written < 0, errno == EINTR { continue }
            guard written > 0 else { throw BlobError(message: "cannot write to the blob directory") }
            done += written
        }
    }

    /// Makes the file visible and answers with the hashes of its bytes.
    consuming func finish() throws(BlobError) -> BlobFacts {
        let isSafe = fsync(descriptor) == 0
        let isClosed = close(descriptor) == 0
        guard isSafe, isClosed, rename(part, path) == 0 else {
            unlink(part)
            throw BlobError(message: "cannot complete a file in the blob directory")
        }
        return BlobFacts(
            length: length,
            sha256: Hexadecimal.text(digest.finalize()),
            sha512: longDigest.map { Hexadecimal.text($0.finalize()) }
        )
    }

    consuming func discard() {
        close(descriptor)
        unlink(part)
    }
}

/// Addresses of blobs that work for a while and for whoever has them.
public struct BlobAddresses: Sendable {
    private let rootURL: String
    private let key: @Sendable () -> [UInt8]

    /// Makes addresses below a root URL.
    public init(rootURL: String, key: @escaping @Sendable () -> [UInt8]) {
        self.rootURL = rootURL.hasSuffix("/") ? String(rootURL.dropLast()) : rootURL
        self.key = key
    }

    /// Where to put the bytes of a blob.
    public func upload(_ blobID: String, until expires: Timestamp) -> String {
        "\(rootURL)/blobs/u/\(blobID)?access_token=\(token("put", blobID, expires))"
    }

    /// Where to get the bytes of a blob.
    public func download(_ blobID: String, until expires: Timestamp) -> String {
        "\(rootURL)/blobs/d/\(blobID)?access_token=\(token("get", blobID, expires))"
    }

    func isValid(_ token: String?, _ verb: String, _ blobID: String, now: Timestamp) -> Bool {
        guard let token, let dot = token.firstIndex(of: "."), let time = Int64(token[..<dot]) else { return false }
        let expires = Timestamp(milliseconds: time)
        guard now < expires, let given = Base64.decoded(token[token.index(after: dot)...]) else { return false }
        return HMAC<SHA256>.isValidAuthenticationCode(
            given,
            authenticating: Self.text(verb, blobID, expires),
            using: SymmetricKey(data: key())
        )
    }

    private func token(_ verb: String, _ blobID: String, _ expires: Timestamp) -> String {
        let code = HMAC<SHA256>.authenticationCode(
            for: Self.text(verb, blobID, expires),
            using: SymmetricKey(data: key())
        )
        return "\(expires.milliseconds).\(Base64.urlEncoded(Array(code)))"
    }

    private static func text(_ verb: String, _ blobID: String, _ expires: Timestamp) -> [UInt8] {
        Array("\(verb)\n\(blobID)\n\(expires.milliseconds)".utf8)
    }
}
