// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc
import JSON
import Synchronization
import Taskcluster
import WorkerKit

/// A file without a name that always holds the task's newest credentials as JSON.
///
/// It is overwritten in one go and padded with spaces to the longest text so far, so a reader at any moment finds valid JSON.
final class CredentialsFile: Sendable {
    private let file: OpenFile
    private let longest = Mutex(0)

    init(_ credentials: Hawk.Credentials) throws {
        let descriptor = clinux_memfd_create("task-credentials")
        guard descriptor >= 0 else { throw FileError("cannot make a file for the credentials", errno) }
        file = OpenFile(adopting: descriptor)
        update(credentials)
    }

    /// A descriptor for the script, which can only read.
    func readOnly() throws -> OpenFile { try OpenFile.reading(file.path) }

    func update(_ credentials: Hawk.Credentials) {
        let json: JSONValue = [
            "accessToken": .string(credentials.accessToken),
            "certificate": credentials.certificate.map { .string($0) } ?? nil,
            "clientId": .string(credentials.clientID),
        ]
        longest.withLock { longest in
            var bytes = Array(json.asciiText(.prettySorted).utf8)
            longest = max(longest, bytes.count)
            bytes += [UInt8](repeating: UInt8(ascii: " "), count: longest - bytes.count)
            _ = pwrite(file.descriptor, bytes, bytes.count, 0)
        }
    }
}
