// SPDX-License-Identifier: MPL-2.0

import Glibc
public import Logging
import Schedules
import Synchronization

/// Writes each log event as one line on standard error: JSON for machines, plain text on a terminal.
public struct LineLogHandler: LogHandler {
    /// How lines look.
    public enum Format: Sendable {
        /// One JSON object a line.
        case json
        /// Time, level, message and `key=value` pairs.
        case human
    }

    /// Facts that every line of this logger carries.
    public var metadata: Logger.Metadata = [:]
    /// Where more facts come from when a line is written.
    public var metadataProvider: Logger.MetadataProvider?
    /// The least severe level that is written.
    public var logLevel: Logger.Level

    private let service: String
    private let format: Format
    private let write: @Sendable (String) -> Void

    /// Creates a handler that labels its lines with a service's name.
    public init(
        service: String,
        level: Logger.Level = .info,
        format: Format = .json,
        write: @escaping @Sendable (String) -> Void = { StandardError.write($0) }
    ) {
        self.service = service
        logLevel = level
        self.format = format
        self.write = write
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
        let sorted = fields.sorted { $0.key < $1.key }
        write(format == .json ? jsonLine(event, sorted) : humanLine(event, sorted))
    }

    private func jsonLine(_ event: LogEvent, _ fields: [(key: String, value: Logger.MetadataValue)]) -> String {
        var line = "{\"time\":\"\(Timestamp.now().iso8601)\",\"level\":\"\(event.level)\",\"service\":"
        line.appendJSON(service)
        line += ",\"message\":"
        line.appendJSON("\(event.message)")
        for (key, value) in fields {
            line += ","
            line.appendJSON(key)
            line += ":"
            line.appendJSON(Redaction.isSecret(key: key) ? .string("...") : value)
        }
        line += "}\n"
        return line
    }

    private func humanLine(_ event: LogEvent, _ fields: [(key: String, value: Logger.MetadataValue)]) -> String {
        var line = "\(Timestamp.now().iso8601.dropFirst(11)) \(event.level) \(event.message)"
        for (key, value) in fields {
            line += " \(key)=\(Redaction.isSecret(key: key) ? "..." : "\(value)")"
        }
        return String(line.map { $0.isNewline ? " " : $0 }) + "\n"
    }
}

/// Standard error, written line by line without interleaving.
public enum StandardError {
    private static let lock = Mutex<Void>(())

    /// Writes a text as a whole, whatever other threads write at the same time.
    public static func write(_ text: String) {
        var text = text
        lock.withLock { _ in
            text.withUTF8 { bytes in
                var rest = UnsafeRawBufferPointer(bytes)
                while let base = rest.baseAddress, !rest.isEmpty {
                    let count = Glibc.write(2, base, rest.count)
                    if count < 0, errno == EINTR { continue }
                    guard count > 0 else { return }
                    rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                }
            }
        }
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
