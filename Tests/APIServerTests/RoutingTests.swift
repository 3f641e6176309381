// SPDX-License-Identifier: MPL-2.0

import Testing

@testable import APIServer

struct RoutingTests {
    private func match(_ route: String, _ path: String) -> [String]? {
        let pieces = path.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
        return RoutePattern(route).match(pieces)?.map { "\($0.name)=\($0.raw)" }
    }

    @Test func `a path is split before it is decoded`() {
        #expect(match("/hooks/<group>/<id>", "/hooks/g/a%2Fb") == ["group=g", "id=a%2Fb"])
        #expect(match("/hooks/<group>/<id>", "/hooks/g/a/b") == nil)
        #expect(match("/hooks/<group>/<id>", "/hooks//b") == nil)
        #expect(match("/hooks/<group>", "/hooks/..") == ["group=.."])
        #expect(match("/hooks/<group>/", "/hooks/g") == ["group=g"])
        #expect(match("/hooks", "/hooks/") == [])
        #expect(match("/hooks", "/hooks//") == nil)
    }

    @Test func `the rest of a path may stand at the end or in the middle`() {
        #expect(match("/a/<name*>", "/a/x/y") == ["name=x/y"])
        #expect(match("/a/<name*>", "/a/x%2Fy") == ["name=x%2Fy"])
        #expect(match("/a/<name*>", "/a//y") == ["name=/y"])
        #expect(match("/a/<name*>", "/a/") == nil)
        #expect(match("/q/<id*>/counts", "/q/p/w/counts") == ["id=p/w"])
        #expect(match("/q/<id*>/counts", "/q/p%2Fw/counts/") == ["id=p%2Fw"])
        #expect(match("/q/<id*>/counts", "/q/counts") == nil)
    }

    @Test func `a broken escape is no text`() {
        #expect(PercentEncoding.decode("a%2Fb%20+") == "a/b +")
        #expect(PercentEncoding.decodeQuery("a+b%2B") == "a b+")
        for broken in ["%", "%4", "%zz", "%ff", "%c3"] {
            #expect(PercentEncoding.decode(broken[...]) == nil)
        }
    }

    @Test func `host and port come from where a client could see them`() {
        func address(_ host: String, port: String? = nil, proto: String? = nil) -> String {
            let found = HawkAddress(authority: host, forwardedPort: port, forwardedProto: proto)
            return "\(found.host) \(found.port)"
        }
        #expect(address("Example.COM:8080") == "example.com 8080")
        #expect(address("example.com") == "example.com 80")
        #expect(address("example.com:8080", proto: "https") == "example.com 443")
        #expect(address("example.com", port: "8443, 80", proto: "https") == "example.com 8443")
        #expect(address("[::1]:5000") == "[::1] 5000")
        #expect(address("[::1]") == "[::1] 80")
    }

    @Test func `a range is one run of bytes`() {
        #expect(ByteRange.parse("bytes=0-0", of: 5) == .bytes(0..<1))
        #expect(ByteRange.parse("bytes=2-", of: 5) == .bytes(2..<5))
        #expect(ByteRange.parse("bytes=-2", of: 5) == .bytes(3..<5))
        #expect(ByteRange.parse("bytes=3-99", of: 5) == .bytes(3..<5))
        #expect(ByteRange.parse("bytes=5-", of: 5) == .unsatisfiable)
        #expect(ByteRange.parse("bytes=-0", of: 5) == .unsatisfiable)
        for ignored in ["bytes=2-1", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b", "bytes=-"] {
            #expect(ByteRange.parse(ignored, of: 5) == nil)
        }
    }

    @Test func `base64 of addresses comes back`() {
        for length in 0..<20 {
            let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0 * 37 + 200) }
            #expect(Base64URL.decode(Base64URL.encode(bytes)) == bytes)
        }
        #expect(Base64URL.decode("a") == nil)
        #expect(Base64URL.decode("a=") == nil)
    }

    @Test func `unknown query options are refused, or left out where an endpoint takes any`() throws {
        #expect(throws: APIError.self) { try QueryOptions.parse("limit=1&x=2", ["limit": .limit]) }
        let open: [String: QueryRule] = ["limit": .limit, "*": .any]
        #expect(try QueryOptions.parse("limit=1&x=2&x=3&y[a]=4", open) == ["limit": "1"])
        #expect(throws: APIError.self) { try QueryOptions.parse("limit=x&x=2", open) }
    }

    @Test func `A38: signatures and tokens never reach a log`() {
        #expect(QueryOptions.redacted("limit=1&bewit=abc&access_token=x") == "limit=1&bewit=...&access_token=...")
    }

    @Test func `dates are spelled as HTTP wants them`() {
        #expect(DateField.format(784_111_777) == "Sun, 06 Nov 1994 08:49:37 GMT")
    }
}
