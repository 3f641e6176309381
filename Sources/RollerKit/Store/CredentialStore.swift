// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON

/// Credentials as files of one folder, readable by their owner only; the database holds no more than their names.
package struct CredentialStore: Sendable {
    /// What is wrong with a credential; never what is in it.
    package struct Problem: Error, Sendable, Hashable, CustomStringConvertible {
        package let description: String
    }

    /// The folder, nil where none is configured.
    package let directory: String?

    package init(directory: String?) {
        self.directory = directory
    }

    /// Reads a credential.
    package func load(_ name: String) throws(Problem) -> Credential {
        let path = try path(name)
        var status = stat()
        guard stat(path, &status) == 0 else {
            throw Problem(description: "the credential \(name) cannot be read: \(Self.reason())")
        }
        guard status.st_mode & 0o077 == 0 else {
            throw Problem(description: "the credential \(name) can be read by others; its file must have mode 0600")
        }
        guard let stream = fopen(path, "re") else {
            throw Problem(description: "the credential \(name) cannot be read: \(Self.reason())")
        }
        defer { fclose(stream) }
        var bytes = [UInt8](repeating: 0, count: 65_536)
        let count = fread(&bytes, 1, bytes.count, stream)
        guard let members = (try? JSONValue(parsing: Array(bytes[..<count])))?.object else {
            throw Problem(description: "the credential \(name) is not a JSON object")
        }
        return Credential(members)
    }

    /// Replaces a credential in one step.
    package func save(_ credential: Credential, as name: String) throws(Problem) {
        let path = try path(name)
        let new = path + ".\(getpid()).\(UInt32.random(in: .min ... .max)).new"
        let descriptor = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else {
            throw Problem(description: "the credential \(name) cannot be written: \(Self.reason())")
        }
        let bytes = credential.json.bytes()
        var written = 0
        while written < bytes.count {
            let count = bytes.withUnsafeBytes { buffer in
                Glibc.write(descriptor, buffer.baseAddress.map { $0 + written }, bytes.count - written)
            }
            if count <= 0 { break }
            written += count
        }
        let isWhole = written == bytes.count && fsync(descriptor) == 0
        guard close(descriptor) == 0, isWhole, rename(new, path) == 0 else {
            let reason = Self.reason()
            unlink(new)
            throw Problem(description: "the credential \(name) cannot be written: \(reason)")
        }
    }

    /// Removes a credential; answers whether there was one.
    package func remove(_ name: String) throws(Problem) -> Bool {
        let path = try path(name)
        if unlink(path) == 0 { return true }
        guard errno == ENOENT else {
            throw Problem(description: "the credential \(name) cannot be removed: \(Self.reason())")
        }
        return false
    }

    /// Whether there is a credential of this name; says nothing about its content.
    package func contains(_ name: String) -> Bool {
        guard let path = try? path(name) else { return false }
        return access(path, F_OK) == 0
    }

    private func path(_ name: String) throws(Problem) -> String {
        guard let directory else {
            throw Problem(description: "there is no folder for credentials; set CREDENTIALS_DIR")
        }
        guard CredentialName.isValid(name) else {
            throw Problem(description: "a credential's name has letters, digits, '_', '.' and '-' only")
        }
        return "\(directory)/\(name).json"
    }

    private static func reason() -> String { String(cString: strerror(errno)) }
}
