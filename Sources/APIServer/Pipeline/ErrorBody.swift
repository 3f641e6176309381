// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules

/// The body of an error, as clients parse it and people read it.
enum ErrorBody {
    /// What a request looked like, repeated to its sender.
    struct Context {
        var method: String
        var shape = API.ErrorShape.taskcluster
        var parameters: [(name: String, value: String)] = []
        var payload: JSONValue = [:]
    }

    static func json(_ error: APIError, _ context: Context, at time: Timestamp) -> JSONValue {
        var parameters = JSONObject()
        for (name, value) in context.parameters {
            parameters[name] = .string(value)
        }
        let text = filled(error.message, error.details)
        return [
            "message": .string(text + trailer(error.code, context.method, time)),
            "code": .string(error.code.name),
            "requestInfo": [
                "method": .string(context.method),
                "params": .object(parameters),
                "payload": context.payload,
                "time": .string(time.iso8601),
            ],
        ]
    }

    /// The refusal as a problem document.
    static func problem(_ error: APIError) -> JSONValue {
        let text = filled(error.message, error.details)
        var body: JSONObject = [
            "type": "about:blank",
            "title": .string(StatusText.reason(error.code.status)),
            "status": JSONValue(error.code.status),
            "detail": .string(text),
            "instance": "about:blank",
            "code": .string(snakeCase(error.code.name)),
        ]
        if error.code.status == 409 {
            body["error_title"] = .string(StatusText.reason(409))
            body["error_message"] = .string(text)
        }
        return .object(body)
    }

    private static func snakeCase(_ name: String) -> String {
        name.reduce(into: "") { text, character in
            if character.isUppercase, !text.isEmpty { text += "_" }
            text += character.lowercased()
        }
    }

    private static func trailer(_ code: APIErrorCode, _ method: String, _ time: Timestamp) -> String {
        "\n\n---\n\n* method:     \(method)\n* errorCode:  \(code.name)\n* statusCode: \(code.status)"
            + "\n* time:       \(time.iso8601)"
    }

    /// Replaces `{{key}}` by the details, once and from left to right; keys without a value stay as they are.
    static func filled(_ template: String, _ details: JSONValue) -> String {
        guard let values = details.object, template.contains("{{") else { return template }
        var result = ""
        var rest = template[...]
        while let open = rest.firstRange(of: "{{") {
            result += rest[..<open.lowerBound]
            let after = rest[open.upperBound...]
            let key = after.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_" || $0 == "-") }
            let tail = after[key.endIndex...]
            if !key.isEmpty, tail.hasPrefix("}}"), let value = values[String(key)] {
                result += value.string ?? value.text(.pretty)
                rest = tail.dropFirst(2)
            } else {
                result += "{"
                rest = rest[rest.index(after: open.lowerBound)...]
            }
        }
        return result + rest
    }
}

/// What the standard calls a status.
public enum StatusText {
    private static let reasons: [Int: String] = [
        400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
        409: "Conflict", 410: "Gone", 412: "Precondition Failed", 413: "Content Too Large",
        415: "Unsupported Media Type", 422: "Unprocessable Content", 429: "Too Many Requests",
        500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
    ]

    /// The phrase of a status of refusal, such as `Not Found`.
    public static func reason(_ status: Int) -> String {
        reasons[status] ?? "Status \(status)"
    }
}
