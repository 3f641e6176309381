// SPDX-License-Identifier: MPL-2.0

import Crypto
import Glibc
import Taskcluster
import WorkerKit

/// The worker's Ed25519 key: base64 of the 32-byte seed in a file.
public struct SigningKey: Sendable {
    /// Why a key file cannot be used; never says what is in it.
    public struct Problem: Error, Sendable, CustomStringConvertible {
        /// One line for a person.
        public let description: String
    }

    /// Whether others than the owner can read the file.
    public let isExposed: Bool
    private let key: Curve25519.Signing.PrivateKey

    /// Reads a key file.
    public init(path: String) throws {
        var info = stat()
        guard stat(path, &info) == 0, let text = try? FileText.read(path) else {
            throw Problem(description: "\(path) cannot be read")
        }
        try self.init(text, name: path, isExposed: info.st_mode & 0o077 != 0)
    }

    /// Reads a key from a descriptor and closes it, so that no script can read it again.
    public init(descriptor: Int32) throws {
        let name = "descriptor \(descriptor)"
        guard fcntl(descriptor, F_GETFD) >= 0 else { throw Problem(description: "\(name) is not open") }
        let file = OpenFile(adopting: descriptor)
        var bytes = [UInt8](repeating: 0, count: 4096)
        var count = 0
        // A pipe gives what it has in pieces.
        while count < bytes.count {
            let more = bytes.withUnsafeMutableBytes {
                read(file.descriptor, $0.baseAddress.map { $0 + count }, $0.count - count)
            }
            if more < 0, errno == EINTR { continue }
            guard more > 0 else { break }
            count += more
        }
        try self.init(String(decoding: bytes[..<count], as: UTF8.self), name: name, isExposed: false)
    }

    private init(_ text: String, name path: String, isExposed: Bool) throws {
        self.isExposed = isExposed
        let trimmed = text.drop(while: \.isWhitespace).reversed().drop(while: \.isWhitespace).reversed()
        guard var bytes = Base64.decoded(String(trimmed)) else {
            throw Problem(description: "\(path) is not base64")
        }
        // Old keys carry the public half behind the seed.
        let tail = bytes.count == 64 ? Array(bytes[32...]) : nil
        if tail != nil { bytes = Array(bytes[..<32]) }
        guard bytes.count == 32, let key = try? Curve25519.Signing.PrivateKey(rawRepresentation: bytes),
            tail == nil || tail == Array(key.publicKey.rawRepresentation)
        else { throw Problem(description: "\(path) does not hold a key of 32 bytes") }
        self.key = key
    }

    /// Signs a message.
    public func signature(of message: [UInt8]) throws -> [UInt8] { Array(try key.signature(for: message)) }

    /// The public half, as configurations list it.
    public var publicKey: String { Base64.encoded(Array(key.publicKey.rawRepresentation)) }

    /// Makes a new pair in the form of key files.
    public static func generate() -> (privateKey: String, publicKey: String) {
        let key = Curve25519.Signing.PrivateKey()
        return (Base64.encoded(Array(key.rawRepresentation)), Base64.encoded(Array(key.publicKey.rawRepresentation)))
    }

    /// Makes a new pair of key files without a line end, the private one for the owner only; refuses to overwrite either.
    public static func writePair(privatePath: String, publicPath: String) throws {
        for path in [privatePath, publicPath] where access(path, F_OK) == 0 {
            throw Problem(description: "\(path) exists already")
        }
        let pair = generate()
        try FileText.write(Array(pair.privateKey.utf8), to: privatePath, mode: 0o600)
        try FileText.write(Array(pair.publicKey.utf8), to: publicPath)
    }
}
