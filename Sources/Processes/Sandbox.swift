// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc

/// A confinement that a program enters before it begins: no new privileges, limits, a user and a `/tmp` of its own.
///
/// The program is started as `<this executable> sandbox-exec <settings> -- program arguments…`; the fresh process confines itself in
/// ``enter(_:)`` and then becomes the program, so nothing is ever done between a fork and an exec.
public struct Sandbox: Sendable, Hashable {
    /// The first argument that makes this executable confine itself.
    public static let command = "sandbox-exec"

    /// The user to become; 0 for staying who we are.
    public var userID: UInt32 = 0
    /// The group to become along with the user.
    public var groupID: UInt32 = 0
    /// The size of the private `/tmp` and `/var/tmp`; 0 for the shared ones.
    public var temporaryBytes = 1 << 30
    /// The largest file the program may write.
    public var fileBytes: Int?
    /// The address space of each of its processes.
    public var memoryBytes: Int?
    /// How many processes its user may have.
    public var processes: Int?
    /// How many files each of its processes may have open.
    public var openFiles: Int?
    /// How much processor time each of its processes may use.
    public var processorSeconds: Int?

    /// A confinement without limits.
    public init() {}

    /// The arguments that start a program confined.
    func arguments(_ program: [String], executable: String) -> [String] {
        func text(_ value: Int?) -> String { value.map { "\($0)" } ?? "-" }
        let settings = [
            "\(userID)", "\(groupID)", "\(temporaryBytes)", text(fileBytes), text(memoryBytes), text(processes),
            text(openFiles), text(processorSeconds),
        ]
        return [executable, Self.command] + settings + ["--"] + program
    }

    /// The path under which this very executable can be started again.
    static let executable = "/proc/self/exe"

    // MARK: - In the new process

    /// Confines this process and becomes the program; ends the process when either fails.
    public static func enter(_ arguments: [String]) -> Never {
        let fields = arguments.dropFirst().prefix(8).map { Int($0) ?? -1 }
        let program = Array(arguments.dropFirst(10))
        guard arguments.count > 10, arguments[9] == "--", fields.count == 8 else { fail("wrong arguments", EINVAL) }
        if fields[2] > 0 { makePrivateTemporaries(fields[2]) }
        let limits: [(Int32, Int)] = [
            (Int32(RLIMIT_FSIZE.rawValue), fields[3]), (Int32(RLIMIT_AS.rawValue), fields[4]),
            (6, fields[5]), (Int32(RLIMIT_NOFILE.rawValue), fields[6]), (Int32(RLIMIT_CPU.rawValue), fields[7]),
            // No dumps of memory that holds credentials.
            (Int32(RLIMIT_CORE.rawValue), 0),
        ]
        if fields[0] > 0 {
            guard clinux_become_user(UInt32(fields[0]), UInt32(fields[1])) == 0 else {
                fail("cannot change user", errno)
            }
        }
        for (resource, value) in limits where value >= 0 {
            guard clinux_limit(resource, UInt(value)) == 0 else { fail("cannot limit resource \(resource)", errno) }
        }
        guard clinux_no_new_privileges() == 0 else { fail("cannot give up new privileges", errno) }
        var pointers = program.map { strdup($0) }
        pointers.append(nil)
        execvp(program[0], &pointers)
        fail("cannot start \(program[0])", errno)
    }

    private static func makePrivateTemporaries(_ bytes: Int) {
        if geteuid() != 0 {
            let (user, group) = (geteuid(), getegid())
            guard clinux_unshare_user_and_mounts() == 0 else { fail("cannot make a user namespace", errno) }
            put("deny", "/proc/self/setgroups")
            put("\(user) \(user) 1", "/proc/self/uid_map")
            put("\(group) \(group) 1", "/proc/self/gid_map")
        } else {
            guard clinux_unshare_mounts() == 0 else { fail("cannot make a mount namespace", errno) }
        }
        guard clinux_mount_private() == 0 else { fail("cannot detach the mounts", errno) }
        for path in ["/tmp", "/var/tmp"] {
            guard clinux_mount_tmpfs(path, "size=\(bytes),mode=1777") == 0 else { fail("cannot mount \(path)", errno) }
        }
    }

    private static func put(_ text: String, _ path: String) {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        _ = write(descriptor, text, text.utf8.count)
        close(descriptor)
    }

    private static func fail(_ what: String, _ number: Int32) -> Never {
        let text = "sandbox: \(what): \(String(cString: strerror(number)))\n"
        _ = write(STDERR_FILENO, text, text.utf8.count)
        _exit(126)
    }
}
