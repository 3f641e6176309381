// SPDX-License-Identifier: MPL-2.0

public import JSON

/// The name of an error on the wire, and the status it is sent with.
public struct APIErrorCode: Sendable, Hashable {
    /// The name clients compare.
    public let name: String
    /// The HTTP status.
    public let status: Int

    /// The body is not the JSON it claims to be.
    public static let malformedPayload = APIErrorCode(name: "MalformedPayload", status: 400)
    /// A route parameter or query option does not match its pattern.
    public static let invalidRequestArguments = APIErrorCode(name: "InvalidRequestArguments", status: 400)
    /// The body does not match its schema.
    public static let inputValidationError = APIErrorCode(name: "InputValidationError", status: 400)
    /// The request makes no sense.
    public static let inputError = APIErrorCode(name: "InputError", status: 400)
    /// The credentials are wrong.
    public static let authenticationFailed = APIErrorCode(name: "AuthenticationFailed", status: 401)
    /// The caller lacks scopes.
    public static let insufficientScopes = APIErrorCode(name: "InsufficientScopes", status: 403)
    /// There is no such thing.
    public static let resourceNotFound = APIErrorCode(name: "ResourceNotFound", status: 404)
    /// The thing exists and differs, or is in no state for the request.
    public static let requestConflict = APIErrorCode(name: "RequestConflict", status: 409)
    /// The thing existed once.
    public static let resourceExpired = APIErrorCode(name: "ResourceExpired", status: 410)
    /// The body is too long.
    public static let inputTooLarge = APIErrorCode(name: "InputTooLarge", status: 413)
    /// The caller asks too often.
    public static let tooManyRequests = APIErrorCode(name: "TooManyRequests", status: 429)
    /// The service failed.
    public static let internalServerError = APIErrorCode(name: "InternalServerError", status: 500)

    /// A code that only one service has.
    public static func custom(_ name: String, _ status: Int) -> APIErrorCode {
        APIErrorCode(name: name, status: status)
    }
}

/// A refusal that the caller is told about.
///
/// Any other error that leaves a handler is logged and answered with an opaque internal error.
public struct APIError: Error, Sendable, CustomStringConvertible {
    /// The name and status on the wire.
    public let code: APIErrorCode
    /// Markdown for people; `{{key}}` is replaced from the details.
    public let message: String
    /// Values for the message; never sent themselves.
    public let details: JSONValue

    /// Makes an error for the caller.
    public init(_ code: APIErrorCode, _ message: String, details: JSONValue = .null) {
        self.code = code
        self.message = message
        self.details = details
    }

    /// The name of the error, without its text.
    public var description: String { "\(code.name) (\(code.status))" }
}
