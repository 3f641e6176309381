// SPDX-License-Identifier: MPL-2.0

import HTTPTypes
import HummingbirdCore
import JSON
import NIOCore

/// Reads the bodies of API requests: whole, and never more than the limit.
enum BodyReader {
    /// The body with its compression undone; hashes and limits are about the content, not about how it travelled.
    static func content(_ head: RequestHead, _ limit: Int) async throws -> [UInt8] {
        let bytes = try await read(head, limit)
        guard !bytes.isEmpty, let name = head.fields[.contentEncoding], name.trimmingBlanks().lowercased() != "identity"
        else { return bytes }
        guard let coding = ContentCoding(contentEncoding: name) else {
            throw APIError(.malformedPayload, "Payloads with content-encoding \(name) are not understood")
        }
        do {
            return try coding.decompressed(bytes, limit: limit)
        } catch .tooLong {
            throw tooLarge(limit)
        } catch {
            throw APIError(.malformedPayload, "The payload is not valid \(coding.rawValue)")
        }
    }

    /// The body as it was sent.
    static func read(_ head: RequestHead, _ limit: Int) async throws -> [UInt8] {
        guard head.hasBody else { return [] }
        let length = head.contentLength
        if let length, length > limit { throw tooLarge(limit) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(length ?? 0)
        head.bodyUse.begin()
        do {
            for try await buffer in head.request.body {
                guard bytes.count + buffer.readableBytes <= limit else { throw tooLarge(limit) }
                bytes.append(contentsOf: buffer.readableBytesView)
            }
        } catch let error as APIError {
            throw error
        } catch {
            throw APIError(.malformedPayload, "The payload ended early")
        }
        return bytes
    }

    /// The value of a JSON body; an empty object for empty bodies and for other media types.
    ///
    /// Taskcluster's services take objects and arrays alone; others may take a text or number by itself.
    static func parse(
        _ bytes: [UInt8],
        _ head: RequestHead,
        takesAnyValue: Bool = false
    ) throws(APIError) -> JSONValue {
        guard !bytes.isEmpty, head.mediaType == "application/json" else { return [:] }
        if let charset = head.charset, !["utf-8", "utf8", "us-ascii"].contains(charset) {
            throw APIError(.malformedPayload, "Payloads in charset \(charset) are not understood; send UTF-8")
        }
        let value: JSONValue
        do {
            value = try JSONValue(parsing: bytes)
        } catch {
            throw APIError(.malformedPayload, "Failed to parse JSON: \(error.message)")
        }
        switch value {
        case .object, .array: return value
        default:
            if takesAnyValue { return value }
            throw APIError(.malformedPayload, "Failed to parse JSON: the payload must be an object or array")
        }
    }

    private static func tooLarge(_ limit: Int) -> APIError {
        APIError(.inputTooLarge, "The payload is longer than \(limit) bytes")
    }
}
