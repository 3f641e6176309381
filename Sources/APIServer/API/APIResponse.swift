// SPDX-License-Identifier: MPL-2.0

public import JSON

/// What a handler answers.
public enum APIResponse: Sendable {
    /// A JSON document, validated against the endpoint's output schema unless it is an error status.
    case json(JSONValue, status: Int = 200, headers: [String: String] = [:])
    /// A JSON document that is already text, sent as it is and not validated.
    case rawJSON([UInt8], status: Int = 200, headers: [String: String] = [:])
    /// 204 and nothing else.
    case empty
    /// Text of another media type.
    case text(String, status: Int = 200, contentType: String = "text/plain; charset=utf-8")
    /// A file, streamed; ranges and `If-None-Match` are honoured.
    case file(path: String, headers: [String: String] = [:])
    /// A status and header fields alone, such as 304.
    case bodyless(Int, headers: [String: String] = [:])
    /// Bytes as they come, until there are no more or the client is gone.
    case stream(contentType: String, next: NextPiece)

    /// Waits for the next piece of a stream; nil ends it.
    public typealias NextPiece = @Sendable () async throws -> [UInt8]?

    /// The status this answer is sent with.
    public var status: Int {
        switch self {
        case .json(_, let status, _), .rawJSON(_, let status, _), .text(_, let status, _): status
        case .empty: 204
        case .file, .stream: 200
        case .bodyless(let status, _): status
        }
    }
}
