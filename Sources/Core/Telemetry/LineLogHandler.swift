// SPDX-License-Identifier: MPL-2.0

import Glibc
public import Logging
import Schedules

/// Writes each log event as one line on standard output: JSON for machines, plain text on a terminal.
///
/// A line of JSON has the shape that Mozilla's log pipeline and Taskcluster's own services use. A message that is one
/// dotted or dashed word, such as `monitor.apiMethod`, is the type of the line and its metadata are the fields of that
/// type; any other message is a sentence on a line of type `monitor.generic`, or `monitor.error` from `error` upwards.
public struct LineLogHandler: LogHandler {
    /// How lines look.
    public enum Format: Sendable {
        /// One JSON object a line.
        case json
        /// Time, level, message and `key=value` pairs.
        case human
    }

    /// The metadata key that gives the version of a line's type; it is 1 if absent.
    public static let versionKey = "v"
    /// The metadata keys that stand beside the fields instead of among them, by their names on a line.
    private static let outside = ["request.id": "requestId", "trace.id": "traceId"]

    /// Facts that every line of this logger carries.
    public var metadata: Logger.Metadata = [:]
    /// Where more facts come from when a line is written.
    public var metadataProvider: Logger.MetadataProvider?
    /// The least severe level that is written.
    public var logLevel: Logger.Level

    private let format: Format
    private let write: @Sendable (String) -> Void
    /// What every line of JSON says of its process, ready to be appended.
    private let origin: String

    /// Creates a handler that labels its lines with a service's name and, for a part of it, with the part's.
    public init(
        service: String,
        child: String? = nil,
        level: Logger.Level = .info,
        format: Format = .json,
        write: @escaping @Sendable (String) -> Void = { StandardOutput.write($0) }
    ) {
        logLevel = level
        self.format = format
        self.write = write
        var origin = ",\"Logger\":"
        origin.appendJSON("taskcluster.\(service)" + (child.map { ".\($0)" } ?? ""))
        origin += ",\"Hostname\":"
        origin.appendJSON(Self.hostname)
        origin += ",\"EnvVersion\":\"2.0\",\"Pid\":\(getpid()),\"serviceContext\":{\"service\":"
        origin.appendJSON(service)
        origin += ",\"version\":"
        origin.appendJSON(Release.version)
        self.origin = origin + "}"
    }

    /// One of the facts that every line carries.
    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Writes an event as one line.
    public func log(event: LogEvent) {
        var fields = metadata
        if let provided = metadataProvider?.get() { fields.merge(provided) { $1 } }
        if let own = event.metadata { fields.merge(own) { $1 } }
        if let error = event.error { fields["error"] = "\(error)" }
        write(format == .json ? jsonLine(event, fields) : humanLine(event, fields.sorted { $0.key < $1.key }))
    }

    private func jsonLine(_ event: LogEvent, _ fields: Logger.Metadata) -> String {
        let message = "\(event.message)"
        let isType = Self.isType(message)
        let isError = event.level >= .error && !isType
        var fields = fields
        var line = "{\"Timestamp\":\(Self.nanoseconds()),\"Type\":"
        line.appendJSON(isType ? message : isError ? "monitor.error" : "monitor.generic")
        line += origin
        line += ",\"Severity\":\(event.level.syslogNumber),\"severity\":\"\(event.level.syslogName)\""
        if !isType {
            line += ",\"message\":"
            line.appendJSON(message)
        }
        for (key, name) in Self.outside {
            guard let value = fields.removeValue(forKey: key) else { continue }
            line += ",\"\(name)\":"
            line.appendJSON(value)
        }
        if isError { fields["message"] = .string(message) }
        if fields[Self.versionKey] == nil { fields[Self.versionKey] = .stringConvertible(1) }
        line += ",\"Fields\":"
        line.appendJSON(.dictionary(fields))
        return line + "}\n"
    }

    private func humanLine(_ event: LogEvent, _ fields: [(key: String, value: Logger.MetadataValue)]) -> String {
        var line = "\(Timestamp.now().iso8601.dropFirst(11)) \(event.level) \(event.message)"
        for (key, value) in fields {
            line += " \(key)=\(Redaction.isSecret(key: key) ? "..." : "\(value)")"
        }
        return String(line.map { $0.isNewline ? " " : $0 }) + "\n"
    }

    private static func isType(_ message: String) -> Bool {
        !message.utf8.contains(UInt8(ascii: " "))
            && message.utf8.contains { $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "-") }
    }

    private static func nanoseconds() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return time.tv_sec * 1_000_000_000 + time.tv_nsec
    }

    private static let hostname: String = {
        let name = [UInt8](unsafeUninitializedCapacity: 256) { buffer, count in
            count = buffer.withMemoryRebound(to: CChar.self) { characters in
                guard let base = characters.baseAddress, gethostname(base, 255) == 0 else { return 0 }
                return strnlen(base, 255)
            }
        }
        return String(decoding: name, as: UTF8.self)
    }()
}

extension Logger.Level {
    /// The severity as syslog counts it.
    fileprivate var syslogNumber: Int {
        switch self {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }

    /// The severity as syslog names it.
    fileprivate var syslogName: String {
        self == .trace ? "DEBUG" : rawValue.uppercased()
    }
}

extension String {
    fileprivate mutating func appendJSON(_ text: String) {
        append("\"")
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": append("\\\"")
            case "\\": append("\\\\")
            case "\n": append("\\n")
            case "\r": append("\\r")
            case "\t": append("\\t")
            case "\u{0}"..<" ":
                let digits = String(scalar.value, radix: 16)
                append("\\u" + String(repeating: "0", count: 4 - digits.count) + digits)
            default: unicodeScalars.append(scalar)
            }
        }
        append("\"")
    }

    fileprivate mutating func appendJSON(_ value: Logger.MetadataValue) {
        switch value {
        case .string(let text): appendJSON(text)
        case .stringConvertible(let convertible):
            switch convertible {
            case let number as Int: append("\(number)")
            case let number as Int64: append("\(number)")
            case let number as Double where number.isFinite: append("\(number)")
            case let flag as Bool: append(flag ? "true" : "false")
            default: appendJSON("\(convertible)")
            }
        case .array(let values):
            append("[")
            for (index, value) in values.enumerated() {
                if index > 0 { append(",") }
                appendJSON(value)
            }
            append("]")
        case .dictionary(let fields):
            append("{")
            for (index, field) in fields.sorted(by: { $0.key < $1.key }).enumerated() {
                if index > 0 { append(",") }
                appendJSON(field.key)
                append(":")
                appendJSON(Redaction.isSecret(key: field.key) ? .string("...") : field.value)
            }
            append("}")
        }
    }
}
