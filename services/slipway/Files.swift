// SPDX-License-Identifier: MPL-2.0

import Glibc

/// Files that commands write.
enum Files {
    /// Puts a file in the place of another one, whole.
    static func move(_ path: String, to target: String) throws {
        guard rename(path, target) == 0 else {
            remove(path)
            throw Failure("cannot write \(target): \(String(cString: strerror(errno)))")
        }
    }

    /// How many bytes a file has.
    static func size(_ path: String) throws -> Int {
        var facts = stat()
        guard stat(path, &facts) == 0 else {
            throw Failure("cannot read \(path): \(String(cString: strerror(errno)))")
        }
        return Int(facts.st_size)
    }

    /// Removes a file; one that is not there is fine.
    static func remove(_ path: String?) {
        if let path { unlink(path) }
    }
}
