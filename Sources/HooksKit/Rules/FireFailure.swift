// SPDX-License-Identifier: MPL-2.0

package import JSON

/// Why a fire made no task, in the forms that callers, the history and the owner are told.
package struct FireFailure: Error, Sendable, CustomStringConvertible {
    /// Where the failure arose.
    package enum Kind: Sendable, Hashable {
        /// The template could not be rendered, or rendered to something that is no task.
        case template
        /// A Taskcluster service refused.
        case service(method: String, code: String, status: Int)
        /// No service answered.
        case network
    }

    package let kind: Kind
    package let message: String
    /// What the history stores: JSON for refusals of a service, plain text otherwise.
    package let record: String
    /// The place in the template that is wrong, such as `template.payload.tasks[0]`, as far as there is one.
    package let location: String?

    package var description: String { message }

    /// The longest text of an error that the history keeps, in characters.
    package static let longestRecord = 131_072

    /// A template that makes no task.
    package init(template message: String, location: String? = nil) {
        kind = .template
        self.message = message
        self.location = location
        record = Self.cut(message)
    }

    /// No answer from the queue.
    package init(network message: String) {
        kind = .network
        self.message = message.isEmpty ? "the queue could not be reached" : message
        record = Self.cut(self.message)
        location = nil
    }

    /// A refusal by a Taskcluster service.
    package init(method: String, code: String, status: Int, message: String, url: String, body: JSONValue?) {
        kind = .service(method: method, code: code, status: status)
        self.message = message
        let record: JSONValue = [
            "name": "Error",
            "message": JSONValue(message),
            "code": JSONValue(code),
            "statusCode": JSONValue(status),
            "url": JSONValue(url),
            "body": body ?? .null,
        ]
        self.record = Self.cut(record.text(.pretty))
        location = nil
    }

    /// What `getHookStatus` shows of a stored record: always an object.
    package static func shown(record: String) -> JSONValue {
        guard let parsed = try? JSONValue(parsing: record), parsed.object != nil else {
            return ["message": JSONValue(record)]
        }
        return parsed
    }

    private static func cut(_ text: String) -> String {
        // The limit counts what JavaScript counts, so that nothing longer ever reaches a client of the real service.
        guard text.utf16.count > longestRecord else { return text }
        return String(decoding: Array(text.utf16.prefix(longestRecord)), as: UTF16.self)
    }
}
