// SPDX-License-Identifier: MPL-2.0

public import Logging

/// The least severe level that each logger of a process writes.
///
/// The text is one level for all (`debug`), or a list of `logger:level` where `root` stands for all others:
/// `root:info pulse:debug`. Levels go by their usual names and by those of syslog.
public struct LogLevels: Sendable, Equatable {
    private var root: Logger.Level = .info
    private var children: [String: Logger.Level] = [:]

    /// Every logger writes from `info` upwards.
    public init() {}

    /// Reads a text; nil if a level in it is unknown.
    public init?(_ text: String) {
        for item in text.split(whereSeparator: { $0 == " " || $0 == "," }) {
            let parts = item.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count <= 2, let level = parts.last.flatMap(Self.level) else { return nil }
            if parts.count == 1 || parts[0] == "root" {
                root = level
            } else {
                children[String(parts[0])] = level
            }
        }
    }

    /// The level of a logger; one without an entry takes that of the nearest name before a dot.
    public func level(of logger: String) -> Logger.Level {
        var name = logger[...]
        while true {
            if let level = children[String(name)] { return level }
            guard let dot = name.lastIndex(of: ".") else { return root }
            name = name[..<dot]
        }
    }

    private static func level(_ name: Substring) -> Logger.Level? {
        switch name.lowercased() {
        case "emerg", "alert", "crit": .critical
        case "err": .error
        case "warn": .warning
        case let name: Logger.Level(rawValue: name)
        }
    }
}
