// SPDX-License-Identifier: MPL-2.0

import CLinux
import Glibc

/// The configuration of a process: named values from flags, the environment and a file.
///
/// A key such as `database.url` is the variable `DATABASE_URL`. Flags win over the environment, the environment over the
/// file. Reading never throws: every problem is collected, a harmless value is returned, and ``check()`` reports all
/// problems at once. Settings are read while a process starts and are not shared between tasks.
///
/// A value may also stand in a file of its own, as orchestrators hand secrets over: `DATABASE_URL_FILE` is the path of a
/// file that holds what `DATABASE_URL` would, without the line feed at its end.
///
/// Values that are kept elsewhere can be added and count where none of these sources has one; see ``add(secrets:)``.
///
/// The sources are plain dictionaries. The providers of swift-configuration would add nothing here: they neither
/// collect problems nor know units, and reading a file through them is asynchronous.
public final class Settings {
    private let overrides: [String: String]
    private let environment: [String: String]
    private let file: [String: String]
    private var secrets: [String: String] = [:]
    private var problems: [String] = []
    private var problemKeys: Set<String> = []
    private var used: [(name: String, value: String)] = []

    /// Creates settings from flags, an environment (the process's own by default) and the path of a file of `NAME=VALUE` lines.
    public init(overrides: [String: String] = [:], environment: [String: String]? = nil, file: String? = nil) {
        self.overrides = overrides
        self.environment = environment ?? Self.processEnvironment()
        guard let file else {
            self.file = [:]
            return
        }
        guard let text = Self.contents(of: file) else {
            self.file = [:]
            problems.append("--config: cannot read \(file): \(String(cString: strerror(errno))); name a readable file")
            return
        }
        let (values, badLines) = SettingsFile.parse(text)
        self.file = values
        problems += badLines.map { "--config: line \($0) of \(file) is not NAME=VALUE" }
    }

    /// The name of the environment variable behind a key.
    public static func variable(_ key: String) -> String {
        var name = ""
        var previousIsLower = false
        for character in key {
            if character == "." || character == "-" {
                name.append("_")
                previousIsLower = false
                continue
            }
            if character.isUppercase, previousIsLower { name.append("_") }
            previousIsLower = character.isLowercase
            name += character.uppercased()
        }
        return name
    }

    /// Adds values that are kept elsewhere, by the names of variables; they count where no other source has one.
    ///
    /// All of them are taken for secrets: neither the summary nor a problem shows one.
    public func add(secrets values: [String: String]) {
        secrets.merge(values) { _, new in new }
    }

    // MARK: Reading

    /// Reads a value that must be set; an empty string stands in when it is not.
    public func required(_ key: String, secret: Bool = false, _ help: String) -> String {
        if let value = value(key, secret: secret) { return value }
        fail(key, "is not set; it is \(help)")
        return ""
    }

    /// Reads a value that may be absent.
    public func optional(_ key: String, secret: Bool = false, _ help: String) -> String? {
        value(key, secret: secret)
    }

    /// Reads a text with a default.
    public func string(_ key: String, default fallback: String, _ help: String) -> String {
        value(key, secret: false) ?? fallback
    }

    /// Reads a whole number within a range.
    public func int(_ key: String, default fallback: Int, in range: ClosedRange<Int>, _ help: String) -> Int {
        guard let text = value(key, secret: false) else { return fallback }
        guard let number = Int(text), range.contains(number) else {
            fail(key, "must be a whole number from \(range.lowerBound) to \(range.upperBound); it is \(help)")
            return fallback
        }
        return number
    }

    /// Reads a truth value: `true`/`false`, `yes`/`no`, `on`/`off`, `1`/`0` in any case.
    public func bool(_ key: String, default fallback: Bool, _ help: String) -> Bool {
        guard let text = value(key, secret: false) else { return fallback }
        switch text.lowercased() {
        case "true", "yes", "on", "1": return true
        case "false", "no", "off", "0": return false
        default:
            fail(key, "must be true or false; it is \(help)")
            return fallback
        }
    }

    /// Reads a length of time such as `30s`, `250ms`, `5m`, `1h` or `2d`; a bare number counts seconds.
    public func duration(
        _ key: String,
        default fallback: Duration,
        in range: ClosedRange<Duration>,
        _ help: String
    ) -> Duration {
        guard let text = value(key, secret: false) else { return fallback }
        guard let duration = Duration(settingsText: text), range.contains(duration) else {
            let bounds = "\(range.lowerBound.settingsText) to \(range.upperBound.settingsText)"
            fail(key, "must be a length of time from \(bounds), for example 30s; it is \(help)")
            return fallback
        }
        return duration
    }

    /// Reads the address of a deployment or service: `http` or `https`, a host, perhaps a port, and no path.
    ///
    /// Slashes at its end are dropped. Without a default the value must be set.
    public func rootURL(_ key: String, default fallback: String? = nil, _ help: String) -> String {
        guard let text = fallback.map({ string(key, default: $0, help) }) ?? value(key, secret: false) else {
            return required(key, help)
        }
        var url = text[...]
        while url.hasSuffix("/") { url.removeLast() }
        let host = url.hasPrefix("https://") ? url.dropFirst(8) : url.hasPrefix("http://") ? url.dropFirst(7) : ""
        guard !host.isEmpty, host.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && !"/?#@\\\"".utf8.contains($0) }) else {
            fail(key, "must be a URL without a path, such as https://tc.example.com; it is \(help)")
            return fallback ?? ""
        }
        return String(url)
    }

    /// Reads the address of a service, of which there need be none: `http` or `https`, a host, perhaps a port and a path.
    ///
    /// Slashes at its end are dropped.
    public func url(_ key: String, secret: Bool = false, _ help: String) -> String? {
        guard let text = value(key, secret: secret) else { return nil }
        guard let url = Self.url(text) else {
            fail(key, "must be a URL such as https://example.com/path; it is \(help)")
            return nil
        }
        return url
    }

    /// Reads a list of addresses of services, with commas; blanks around them are dropped.
    public func urls(_ key: String, _ help: String) -> [String] {
        var urls: [String] = []
        for text in (value(key, secret: false) ?? "").split(separator: ",") {
            let text = text.filter { !$0.isWhitespace }
            guard !text.isEmpty else { continue }
            guard Self.url(text) != nil else {
                fail(key, "must be URLs such as https://example.com/path, with commas; it is \(help)")
                continue
            }
            urls.append(text)
        }
        return urls
    }

    /// An address without slashes at its end; nil for what is none.
    private static func url(_ text: String) -> String? {
        var url = text[...]
        while url.hasSuffix("/") { url.removeLast() }
        let rest = url.hasPrefix("https://") ? url.dropFirst(8) : url.hasPrefix("http://") ? url.dropFirst(7) : ""
        guard let first = rest.first, first != "/", first != "?", first != "#", first != ":",
            rest.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        else { return nil }
        return String(url)
    }

    /// Reads the address of a service that has a default.
    public func url(_ key: String, default fallback: String, _ help: String) -> String {
        url(key, help) ?? fallback
    }

    /// Reads the path of a file or folder, of which there need be none; what it names must be there and readable.
    public func path(_ key: String, _ help: String) -> String? {
        guard let path = value(key, secret: false) else { return nil }
        if access(path, R_OK) != 0 {
            fail(key, "names \(path), which cannot be read: \(String(cString: strerror(errno))); it is \(help)")
        }
        return path
    }

    // MARK: Problems

    /// Records a problem with a value; the first problem of each key is kept.
    public func fail(_ key: String, _ problem: String) {
        guard problemKeys.insert(key).inserted else { return }
        problems.append("\(Self.variable(key)) \(redacted(problem, key))")
    }

    /// A problem without what it quotes of a value that was added as a secret.
    private func redacted(_ problem: String, _ key: String) -> String {
        var problem = problem
        for name in Self.names(key) {
            guard let value = secrets[name], !value.isEmpty else { continue }
            let pieces = value.split { $0.isWhitespace || ",;:\"'@/[]{}".contains($0) }.map(String.init)
            for piece in [value] + pieces.filter({ $0.utf8.count > 3 }) where problem.contains(piece) {
                problem = problem.split(separator: piece, omittingEmptySubsequences: false).joined(separator: "...")
            }
        }
        return problem
    }

    /// Throws all problems recorded so far, if there are any.
    public func check() throws(ConfigurationError) {
        guard problems.isEmpty else { throw ConfigurationError(problems: problems) }
    }

    /// The variables that were read and set, secrets replaced, for the line a daemon logs when it starts.
    public var summary: [(name: String, value: String)] { used }

    // MARK: Sources

    private func value(_ key: String, secret: Bool) -> String? {
        for name in Self.names(key) {
            for source in [overrides, environment, file] {
                if let value = source[name], !value.isEmpty {
                    note(name, secret ? "..." : Redaction.url(value))
                    return value
                }
                guard let path = source[name + "_FILE"], !path.isEmpty else { continue }
                note(name + "_FILE", path)
                guard var value = Self.contents(of: path) else {
                    fail(key, "cannot be read: \(name)_FILE names a file that is not there or not readable")
                    return nil
                }
                if value.last?.isNewline == true { value.removeLast() }
                if !value.isEmpty { return value }
            }
        }
        for name in Self.names(key) {
            guard let value = secrets[name], !value.isEmpty else { continue }
            note(name, "...")
            return value
        }
        return nil
    }

    private func note(_ name: String, _ value: String) {
        if !used.contains(where: { $0.name == name }) { used.append((name, value)) }
    }

    private static func names(_ key: String) -> [String] {
        // Two variables have a second name that deployments know.
        switch key {
        case "http.port": ["HTTP_PORT", "PORT"]
        case "log.level": ["LOG_LEVEL", "LEVEL"]
        default: [variable(key)]
        }
    }

    private static func processEnvironment() -> [String: String] {
        var result: [String: String] = [:]
        guard var entry = clinux_environment() else { return result }
        while let text = entry.pointee {
            let line = String(cString: text)
            if let equals = line.firstIndex(of: "=") {
                result[String(line[..<equals])] = String(line[line.index(after: equals)...])
            }
            entry += 1
        }
        return result
    }

    private static func contents(of path: String) -> String? {
        guard let stream = fopen(path, "re") else { return nil }
        defer { fclose(stream) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = fread(&chunk, 1, chunk.count, stream)
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return ferror(stream) == 0 ? String(decoding: bytes, as: UTF8.self) : nil
    }
}
