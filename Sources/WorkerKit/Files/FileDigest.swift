// SPDX-License-Identifier: MPL-2.0

import Crypto

/// Digests of files, as lower-case hexadecimal text.
public enum FileDigest {
    /// The SHA-256 of a whole file; blocks, so call it through ``FileWork``.
    public static func sha256(_ file: OpenFile) throws -> String {
        var hash = SHA256()
        try file.forEachPiece { hash.update(bufferPointer: $0) }
        return hexadecimal(hash.finalize())
    }

    /// The SHA-512 of a whole file; blocks, so call it through ``FileWork``.
    public static func sha512(_ file: OpenFile) throws -> String {
        var hash = SHA512()
        try file.forEachPiece { hash.update(bufferPointer: $0) }
        return hexadecimal(hash.finalize())
    }

    private static func hexadecimal(_ digest: some Sequence<UInt8>) -> String {
        let digits = Array("0123456789abcdef".utf8)
        return String(decoding: digest.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] }, as: UTF8.self)
    }
}
