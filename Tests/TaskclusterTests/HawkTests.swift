// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import Testing

@testable import Taskcluster

struct HawkTests {
    @Test func `the published vector of a POST has this hash and this mac`() {
        let hash = Hawk.payloadHash(contentType: "application/json", body: Array(#"{"a":1}"#.utf8))
        #expect(hash == "qKG2AtsqLMhIdy7+OrxWG0bU8wTDncYSW0gmNukAKpI=")
        let artifacts = Hawk.Artifacts(
            timestamp: "1500000000",
            nonce: "abc123",
            method: "POST",
            target: HawkTarget(host: "tc.example.test", port: 8080, resource: "/api/hooks/v1/hooks/g/h%2Fx?limit=5"),
            hash: hash,
            ext: "e30="
        )
        #expect(Hawk.mac(.header, artifacts, key: Vectors.key) == "qSeGL5XFVuoXa6UF2pYZU5QaG4QY2NH07Wn9OJjT6DE=")
    }

    @Test func `A7: an empty body of no type has the hash Python sends`() {
        #expect(Hawk.payloadHash(contentType: "", body: []) == "B0weSUXsMcb5UhL41FZbrUJCAotzSI3HawE1NPLRUz8=")
        #expect(
            Hawk.payloadHash(contentType: "application/json", body: [])
                == "NVuBm+XMyya3Tq4EhpZ0cQWjVUyIA8sKnySkKDOIM4M="
        )
    }

    @Test func `A8: a payload hash fits its body only, whatever its length`() {
        let body = Array(#"{"a":1}"#.utf8)
        let hash = Hawk.payloadHash(contentType: "application/json; charset=utf-8", body: body)
        #expect(Hawk.isPayloadHash(hash, contentType: "Application/JSON", body: body))
        #expect(!Hawk.isPayloadHash(hash, contentType: "application/json", body: body + [0x20]))
        #expect(!Hawk.isPayloadHash("short", contentType: "application/json", body: body))
    }

    @Test func `the hash of nothing is accepted for bodies that are not JSON, as the reference computes it`() {
        let hash = Hawk.payloadHash(contentType: "text/plain", body: [])
        #expect(Hawk.isPayloadHash(hash, contentType: "text/plain", body: [1]))
        let empty = Hawk.payloadHash(contentType: "application/json", body: [])
        #expect(!Hawk.isPayloadHash(empty, contentType: "application/json", body: [1]))
    }

    @Test func `the published vector of a signed URL`() {
        let bewit = Hawk.bewit(Vectors.target, credentials: Vectors.credentials, expiry: 1_500_000_900, ext: "e30=")
        #expect(
            bewit
                == "cHJvamVjdC9kZW1vL2NsaWVudC0xXDE1MDAwMDA5MDBcNHcyQkdWUm5TRFFNS0dmaFF2VHFzT2JSck9sb1JOdDcyQ1J4dDBjRmc2VT1cZTMwPQ"
        )
    }

    @Test(arguments: [
        ("http://h", "h", 80, "/"), ("https://h/a%2Fb?c#d", "h", 443, "/a%2Fb?c"),
        ("HTTP://user@h:81?x", "h", 81, "/?x"), ("http://[::1]:8080/", "[::1]", 8080, "/"),
        ("http://[::1]/", "[::1]", 80, "/"),
    ])
    func `a URL is cut into what is signed`(_ url: String, _ host: String, _ port: Int, _ resource: String) {
        #expect(HawkTarget(url: url) == HawkTarget(host: host, port: port, resource: resource))
    }

    @Test(arguments: ["ftp://h/", "http://", "http://h:x/", "/path"])
    func `other texts are not signed`(_ url: String) {
        #expect(HawkTarget(url: url) == nil)
    }

    @Test func `A30: attributes come in any order and print as they were read`() throws {
        let header = try Hawk.Header(#"hawk mac="m=", hash="h",id="a/b" , ts="1",nonce="n",ext="e30=""#)
        #expect(header.id == "a/b")
        #expect(header.hash == "h")
        #expect(try Hawk.Header(header.text) == header)
    }

    @Test(arguments: [
        (#"Bearer abc"#, "Unauthorized: only the Hawk authorization scheme is supported"),
        ("Hawk", "Bad Request: Invalid header syntax"),
        (#"Hawk id="a", id="b""#, "Bad Request: Duplicate attribute: id"),
        (#"Hawk id="a", foo="x""#, "Bad Request: Unknown attribute: foo"),
        (#"Hawk id="""#, "Bad Request: Bad attribute value: id"),
        (#"Hawk id="a\b""#, "Bad Request: Bad attribute value: id"),
        (#"Hawk id="a" ts="1""#, "Bad Request: Bad header format"),
        (#"Hawk id=a"#, "Bad Request: Bad header format"),
        (#"Hawk id="a"#, "Bad Request: Bad header format"),
        (#"Hawk id="a", ts="1", nonce="n""#, "Bad Request: Missing attributes"),
        (String(repeating: "a", count: 4097), "Bad Request: Header length too long"),
    ])
    func `A30: a malformed header is refused with the reference's words`(_ text: String, _ message: String) {
        let rejection = #expect(throws: HawkRejection.self) { try Hawk.Header(text) }
        #expect(rejection?.description == message)
    }

    @Test(arguments: ["", "f", "fo", "foo", "foob", "fooba", "foobar", "\u{7f}\u{0}>>???"])
    func `base64 reads back what it wrote, in both alphabets`(_ text: String) {
        let bytes = Array(text.utf8)
        #expect(Base64.decoded(Base64.encoded(bytes)) == bytes)
        #expect(Base64.decoded(Base64.urlEncoded(bytes)) == bytes)
    }

    @Test(arguments: ["@@", "A", "AA=", "AA===", "A=A=", "AAAA=", "é"])
    func `other texts are not base64`(_ text: String) {
        #expect(Base64.decoded(text) == nil)
    }

    @Test func `slugids are nice and of version 4`() {
        for _ in 0..<200 {
            let id = Slugid.make()
            #expect(Slugid.isValid(id))
            #expect(id.first.map { "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef".contains($0) } == true)
        }
        #expect(!Slugid.isValid("AAAAAAAAAAAAAAAAAAAAAA"))
        #expect(Slugid.isValid("-AAAAAAAQACAAAAAAAAAAA"))
    }
}
