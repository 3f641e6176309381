// SPDX-License-Identifier: MPL-2.0

import Glibc
import JSON
import RollerKit

/// Runs commands on machines with OpenSSH, never interactively and only where the host key is known.
struct SSHClient {
    let context: ActionContext
    let control: Control

    /// How an attempt to run a command came out.
    enum Ending: Hashable {
        /// The command ran and said so.
        case exited(Int)
        /// The session broke after authentication: a reboot does that.
        case broken
        case hostKeyMismatch
        case denied
        case unreachable
        case timeout
    }

    /// Runs one command; the text is what it printed.
    func run(_ command: String, limit: Duration = .seconds(15)) async throws(ActionError) -> (Ending, ToolOutput) {
        let files = try SecretFiles()
        defer { files.remove() }
        let output = try await context.tools.run(try invocation(command, files, limit: limit))
        return (Self.ending(output), output)
    }

    /// The command line as it is shown; no file is written for it.
    static func plan(_ command: String, _ control: Control, _ target: ActionTarget) throws(ActionError) -> String {
        try arguments(
            command,
            control,
            target,
            keyFile: "<key>",
            knownHosts: "<known hosts>",
            alias: alias(control, target)
        )
        .joined(separator: " ")
    }

    private func invocation(
        _ command: String,
        _ files: SecretFiles,
        limit: Duration
    ) throws(ActionError) -> ToolInvocation {
        let credential = try context.credential(of: control)
        guard let keyFile = credential.privateKeyFile, access(keyFile, R_OK) == 0 else {
            throw ActionError(.credentials, "the private key of \(control.name) cannot be read")
        }
        var knownHosts = context.settings.knownHosts
        let alias = Self.alias(control, context.target)
        if let alias {
            let keys = Self.pinnedKeys(control, context.target)
            knownHosts = try files.write("known_hosts", keys.map { "\(alias) \($0.line)\n" }.joined())
        }
        guard let knownHosts else {
            throw ActionError(.config, "no host key of \(context.target.name) is known; accept one first")
        }
        let arguments = try Self.arguments(
            command,
            control,
            context.target,
            keyFile: keyFile,
            knownHosts: knownHosts,
            alias: alias
        )
        return ToolInvocation(arguments, limit: limit)
    }

    /// The keys that were accepted: those of the machine, else those of the controller.
    ///
    /// What is no key is left out; it could add lines of its own to the file.
    static func pinnedKeys(_ control: Control, _ target: ActionTarget) -> [HostKey] {
        let own = HostKey.pinned(target.properties)
        return own.isEmpty ? HostKey.list(control.setting("host_keys")) : own
    }

    /// Pinned keys belong to the machine, whatever address it has today.
    private static func alias(_ control: Control, _ target: ActionTarget) -> String? {
        pinnedKeys(control, target).isEmpty ? nil : target.name
    }

    static func port(_ control: Control) -> Int { control.port ?? control.setting("port")?.int ?? 22 }

    static func login(_ control: Control) throws(ActionError) -> String {
        let login = control.setting("login")?.string ?? control.setting("user")?.string ?? "roller"
        guard let first = login.utf8.first, first != UInt8(ascii: "-"),
            login.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7f })
        else {
            throw ActionError(.config, "the login at \(control.name) is not well formed")
        }
        return login
    }

    private static func arguments(
        _ command: String,
        _ control: Control,
        _ target: ActionTarget,
        keyFile: String,
        knownHosts: String,
        alias: String?
    ) throws(ActionError) -> [String] {
        var host = try target.host()
        if let address = control.address { host = try HostName.validated(address) }
        var options = [
            "BatchMode=yes", "ConnectTimeout=5", "ServerAliveInterval=2", "ServerAliveCountMax=2", "LogLevel=ERROR",
            "IdentitiesOnly=yes", "PasswordAuthentication=no", "KbdInteractiveAuthentication=no",
            "StrictHostKeyChecking=yes", "UserKnownHostsFile=\"\(knownHosts)\"", "GlobalKnownHostsFile=/dev/null",
            "UpdateHostKeys=no", "ForwardAgent=no", "ClearAllForwardings=yes", "PermitLocalCommand=no",
        ]
        if let alias { options.append("HostKeyAlias=\(try HostName.validated(alias))") }
        return ["ssh", "-F", "/dev/null", "-T"] + options.flatMap { ["-o", $0] } + [
            "-i", keyFile, "-l", try login(control), "-p", "\(port(control))",
            "--", host, command,
        ]
    }

    /// What the end of `ssh` means.
    static func ending(_ output: ToolOutput) -> Ending {
        if output.timedOut { return .timeout }
        guard output.code == 255 else { return .exited(output.code) }
        let text = output.text
        if text.contains("Host key verification failed") || text.contains("HOST IDENTIFICATION HAS CHANGED")
            || text.contains("host key is known")
        {
            return .hostKeyMismatch
        }
        if text.contains("Permission denied") || text.contains("Too many authentication failures") { return .denied }
        if text.contains("banner exchange") || text.contains("kex_exchange") || text.contains("timed out during") {
            return .unreachable
        }
        let broke = ["closed by remote host", "Connection reset", "Broken pipe", "not responding", "Connection to "]
        if broke.contains(where: text.contains), !text.contains("connect to host") { return .broken }
        // Silence after authentication: the other side went away without a word.
        if text.allSatisfy(\.isWhitespace) { return .broken }
        return .unreachable
    }

    /// What identifies the present boot of the machine; nil when the machine does not tell.
    func bootID() async throws(ActionError) -> String? {
        let command =
            context.target.properties["ssh.boot_id_command"]?.string
            ?? "cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.bootsessionuuid"
        let (ending, output) = try await run(command, limit: .seconds(8))
        guard ending == .exited(0) else { return nil }
        let line = output.text.split(separator: "\n").last.map { $0.filter { !$0.isWhitespace } } ?? ""
        return (8...64).contains(line.utf8.count) ? line.lowercased() : nil
    }
}

/// Small files for programs that take secrets from files only: in a directory of their own that nobody else may enter.
struct SecretFiles {
    let directory: String

    init() throws(ActionError) {
        var template = Array("/tmp/roller-\(getpid())-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw ActionError(.tooling, "cannot make a temporary directory") }
        directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Writes a file that only we can read, and answers its path.
    func write(_ name: String, _ text: String) throws(ActionError) -> String {
        let path = "\(directory)/\(name)"
        let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw ActionError(.tooling, "cannot write a temporary file") }
        defer { close(file) }
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            guard count > 0 else { throw ActionError(.tooling, "cannot write a temporary file") }
            bytes = bytes.dropFirst(count)
        }
        return path
    }

    /// Removes what processes left behind that were killed.
    static func removeAbandoned() {
        guard let handle = opendir("/tmp") else { return }
        defer { closedir(handle) }
        while let item = readdir(handle) {
            let name = withUnsafePointer(to: &item.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            let parts = name.split(separator: "-")
            guard parts.count == 3, parts[0] == "roller", parts[2].utf8.count == 6, let process = Int32(parts[1]) else {
                continue
            }
            if kill(process, 0) != 0, errno == ESRCH { remove("/tmp/\(name)", depth: 0) }
        }
    }

    /// Removes the directory and what is in it.
    func remove() { Self.remove(directory, depth: 0) }

    private static func remove(_ directory: String, depth: Int) {
        guard depth < 4, let handle = opendir(directory) else { return }
        while let item = readdir(handle) {
            let name = withUnsafePointer(to: &item.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard name != ".", name != ".." else { continue }
            // Programs leave folders of their own here.
            if unlink("\(directory)/\(name)") != 0 { remove("\(directory)/\(name)", depth: depth + 1) }
        }
        closedir(handle)
        rmdir(directory)
    }
}
