// SPDX-License-Identifier: MPL-2.0
import Crypto
import Glibc
public import Schedules
import Taskcluster

/// Files below one directory, written completely or not at all.
public struct BlobStore: Sendable {
    /// The directory of all files.
    public let directory: String

    /// Uses a directory, which is made when the first file comes.
    public init(directory: String) {
        self.directory = directory.hasSuffix("/") ? String(directory.dropLast()) : directory
    }

    /// The absolute path of a stored file.
    public func path(_ file: String) -> String { "\(directory)/\(file)" }

    /// Removes a file; a missing one is no problem.
    public func remove(_ file: String) {
        unlink(path(file))
    }

    /// Opens a new file to write to.
    func open() throws(BlobError) -> BlobWriter {
        let name = Slugid.make()
        let shard = String(name.prefix(2))
        mkdir(directory, 0o700)
        mkdir("\(directory)/\(shard)", 0o700)
        let file = "\(shard)/\(name)"
        let descriptor = Glibc.open(path(file) + ".part", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw BlobError(message: "cannot create a file in the blob directory") }
        return BlobWriter(file: file, path: path(file), descriptor: descriptor)
    }
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
    private let path: String
    private let descriptor: Int32
    private var digest = SHA256()
    private(set) var length = 0

    init(file: String, path: String, descriptor: Int32) {
        self.file = file
        self.path = path
        self.descriptor = descriptor
    }

    mutating func write(_ bytes: [UInt8]) throws(BlobError) {
        digest.update(data: bytes)
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

    /// Makes the file visible and answers with the SHA-256 of its bytes.
    consuming func finish() throws(BlobError) -> String {
        let isSafe = fsync(descriptor) == 0 && close(descriptor) == 0 && rename(path + ".part", path) == 0
        guard isSafe else { throw BlobError(message: "cannot complete a file in the blob directory") }
        return digest.finalize().map { byte in
            let text = String(byte, radix: 16)
            return text.count == 1 ? "0" + text : text
        }.joined()
    }

    consuming func discard() {
        close(descriptor)
        unlink(path + ".part")
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
