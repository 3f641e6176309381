// SPDX-License-Identifier: MPL-2.0

import CZlib
import HTTPTypes

/// Compression of bodies in memory: answers for clients that ask for it, requests of clients that use it.
enum ContentCoding: String {
    case gzip
    case deflate

    /// Bodies up to this length are not worth the effort.
    static let threshold = 1024

    /// Why a compressed body cannot be read.
    enum DecodingError: Error {
        case damaged
        case tooLong
    }

    /// The coding that a `Content-Encoding` field names; nil for one that is not understood.
    init?(contentEncoding text: String) {
        switch text.trimmingBlanks().lowercased() {
        case "gzip", "x-gzip": self = .gzip
        case "deflate": self = .deflate
        default: return nil
        }
    }

    /// Whether a client that sends this `Accept-Encoding` wants gzip.
    static func wantsGzip(_ text: String?) -> Bool {
        guard let text else { return false }
        for item in text.lowercased().split(separator: ",") {
            let parts = item.split(separator: ";").map { $0.trimmingBlanks() }
            guard parts.first == "gzip" || parts.first == "x-gzip" || parts.first == "*" else { continue }
            let quality = parts.dropFirst().first { $0.hasPrefix("q=") }
            return quality.map { Double($0.dropFirst(2)) ?? 0 > 0 } ?? true
        }
        return false
    }

    /// Whether bodies of a media type become shorter.
    static func isWorthwhile(_ mediaType: String?) -> Bool {
        guard let mediaType else { return false }
        return mediaType.hasPrefix("application/json") || mediaType.hasPrefix("text/")
    }

    // MARK: - Both ways

    /// The bytes as one gzip member; nil if zlib cannot start.
    static func compressed(_ bytes: [UInt8]) -> [UInt8]? {
        withStream { stream in
            // A low level: replies are short-lived and somebody waits for them.
            guard czlib_deflate_init_gzip(stream, 2) == Z_OK else { return nil }
            defer { deflateEnd(stream) }
            let bound = Int(deflateBound(stream, uLong(bytes.count)))
            var isComplete = false
            let result = bytes.withUnsafeBufferPointer { input in
                stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
                stream.pointee.avail_in = uInt(input.count)
                return [UInt8](unsafeUninitializedCapacity: bound) { room, count in
                    stream.pointee.next_out = room.baseAddress
                    stream.pointee.avail_out = uInt(bound)
                    isComplete = CZlib.deflate(stream, Z_FINISH) == Z_STREAM_END
                    count = bound - Int(stream.pointee.avail_out)
                }
            }
            return isComplete ? result : nil
        }
    }

    /// The content of compressed bytes, all of which have to belong to it; longer content than the limit is an error.
    func decompressed(_ bytes: [UInt8], limit: Int) throws(DecodingError) -> [UInt8] {
        let result: Result<[UInt8], DecodingError> = Self.withStream { stream in
            let status = self == .gzip ? czlib_inflate_init_gzip(stream) : czlib_inflate_init_zlib(stream)
            guard status == Z_OK else { return .failure(.damaged) }
            defer { inflateEnd(stream) }
            return bytes.withUnsafeBufferPointer { input in
                stream.pointee.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
                stream.pointee.avail_in = uInt(input.count)
                return Self.inflated(stream, limit)
            }
        }
        return try result.get()
    }

    private static func inflated(_ stream: UnsafeMutablePointer<z_stream>, _ limit: Int) -> Result<
        [UInt8], DecodingError
    > {
        let piece = 64 << 10
        var content: [UInt8] = []
        while true {
            var result = Z_OK
            content += [UInt8](unsafeUninitializedCapacity: piece) { room, count in
                stream.pointee.next_out = room.baseAddress
                stream.pointee.avail_out = uInt(piece)
                result = CZlib.inflate(stream, Z_NO_FLUSH)
                count = piece - Int(stream.pointee.avail_out)
            }
            guard content.count <= limit else { return .failure(.tooLong) }
            switch result {
            case Z_OK:
                continue
            case Z_STREAM_END:
                guard stream.pointee.avail_in > 0 else { return .success(content) }
                // Several members in a row are one content.
                guard inflateReset(stream) == Z_OK else { return .failure(.damaged) }
            default:
                return .failure(.damaged)
            }
        }
    }

    /// Lends a stream whose address stays the same, as zlib demands.
    private static func withStream<Value>(_ body: (UnsafeMutablePointer<z_stream>) -> Value) -> Value {
        let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
        stream.initialize(to: z_stream())
        defer { stream.deallocate() }
        return body(stream)
    }
}

extension Reply {
    /// Compresses the body if that is worthwhile and the client asks for it.
    mutating func compress(for head: RequestHead) {
        guard
            !isForeign, case .bytes(let bytes) = body, bytes.count > ContentCoding.threshold,
            fields[.contentEncoding] == nil, fields[.contentRange] == nil,
            ContentCoding.isWorthwhile(fields[.contentType])
        else { return }
        fields[.vary] = fields[.vary].map { "\($0), Accept-Encoding" } ?? "Accept-Encoding"
        guard
            head.request.method != .head, ContentCoding.wantsGzip(head.fields[.acceptEncoding]),
            let compressed = ContentCoding.compressed(bytes)
        else { return }
        body = .bytes(compressed)
        fields[.contentEncoding] = "gzip"
    }
}
