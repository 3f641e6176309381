// SPDX-License-Identifier: MPL-2.0

import BridgesKit
import Core
import HTTPClient
import JSON
import Taskcluster

/// Calls methods of Phabricator.
///
/// Conduit takes a form whose field `params` is the JSON of all parameters; the token travels inside, under
/// `__conduit__`. The status is 200 whatever happened, and `error_code` says whether it went well.
struct Conduit: Sendable {
    /// Why a call came to nothing.
    struct Failure: Error, Equatable, CustomStringConvertible {
        let description: String
        var retryAfter: Duration?
    }

    /// Where Phabricator is, without a slash at the end.
    let url: String
    let token: Secret
    let transport: any HTTPTransport
    var timeout = Duration.seconds(30)

    private static let answerLimit = 16 << 20

    /// Calls a method and answers its result.
    func call(_ method: String, _ parameters: JSONObject) async throws(Failure) -> JSONValue {
        var parameters = parameters
        parameters["__conduit__"] = ["token": .string(token.text)]
        let form = "params=" + Self.encoded(JSONValue.object(parameters).text()) + "&output=json&__conduit__=1"
        var request = HTTPRequest(
            method: "POST",
            url: "\(url)/api/\(method)",
            headers: ["Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"],
            body: .bytes(Array(form.utf8)),
            timeout: timeout
        )
        request.sink = .memory(limit: Self.answerLimit)
        let response: HTTPResponse
        do { response = try await transport.send(request) } catch {
            throw Failure(description: "\(method): \(error.message)")
        }
        guard response.status == 200 else {
            let asked = response.headers["Retry-After"].flatMap { Int($0) }.map { min(max($0, 0), 3600) }
            throw Failure(
                description: "\(method): Phabricator answered \(response.status)",
                retryAfter: asked.map { .seconds($0) }
            )
        }
        let answer: JSONValue
        do { answer = try JSONValue(parsing: response.body) } catch {
            throw Failure(description: "\(method): the answer is not JSON: \(error.message)")
        }
        if let code = answer["error_code"]?.string {
            let text = answer["error_info"]?.string ?? "no reason given"
            // Phabricator repeats a token that it does not accept.
            throw Failure(description: "\(method): \(code): \(text)".replacing(token.text, with: "…"))
        }
        guard let result = answer["result"], result.object != nil else {
            throw Failure(description: "\(method): the answer has no result")
        }
        return result
    }

    /// The entries that a search answers with, and the cursor after which there are more.
    func search(_ method: String, _ parameters: JSONObject) async throws(Failure) -> (data: [JSONValue], after: String?)
    {
        let result = try await call(method, parameters)
        guard let data = result["data"]?.array else {
            throw Failure(description: "\(method): the answer has no data")
        }
        // A cursor is a text, or a number from older servers, or null on the last page.
        let cursor = result["cursor"]?["after"]
        return (data, cursor?.string ?? cursor?.int.map(String.init))
    }

    private static func encoded(_ text: String) -> String {
        var bytes: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "~"):
                bytes.append(byte)
            default:
                let digits = Array("0123456789ABCDEF".utf8)
                bytes += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
