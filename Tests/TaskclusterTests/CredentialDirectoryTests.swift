// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import Testing

@testable import Taskcluster

struct CredentialDirectoryTests {
    let now = Vectors.now

    @Test func `a good signature gives the client and its scopes`() {
        let result = Vectors.directory().authenticate(Vectors.request(Vectors.header()), now: now)
        #expect(result.clientID == Vectors.clientID)
        #expect(result.scopes == ["assume:anonymous", "scope:*"])
    }

    @Test func `A4: no credentials mean the scopes of everybody for a quarter of an hour`() {
        let roles = [Role(id: "anonymous", scopes: ["queue:status:*"])]
        let result = Vectors.directory(roles: roles).authenticate(Vectors.request(nil), now: now)
        #expect(result == .none(scopes: ["assume:anonymous", "queue:status:*"], expires: now + .seconds(900)))
    }

    @Test func `A5: unknown, disabled and expired clients are refused by name`() {
        let request = Vectors.request(Vectors.header(Hawk.Credentials(clientID: "nobody", accessToken: Vectors.key)))
        #expect(
            Vectors.directory().authenticate(request, now: now).message == "Client with clientId 'nobody' not found"
        )
        let good = Vectors.request(Vectors.header())
        #expect(
            Vectors.directory(disabled: true).authenticate(good, now: now).message
                == "Client with clientId '\(Vectors.clientID)' is disabled"
        )
        let expired = Vectors.directory(expires: now - .seconds(1))
        #expect(
            expired.authenticate(good, now: now).message == "Client with clientId '\(Vectors.clientID)' has expired"
        )
    }

    @Test(arguments: [(-16, false), (-14, true), (14, true), (16, false)])
    func `A6: a clock may be wrong by a quarter of an hour`(_ minutes: Int, _ isGood: Bool) {
        let header = Vectors.header(at: now + .seconds(minutes * 60))
        let result = Vectors.directory().authenticate(Vectors.request(header), now: now)
        #expect(result.message == (isGood ? nil : "Unauthorized: Stale timestamp"))
    }

    @Test(arguments: ["-9223372036854775808", "9223372036854775807", "-1", "1e9"])
    func `A6: a time that no clock shows is refused`(_ timestamp: String) {
        #expect(result(at: timestamp).message == "Unauthorized: Stale timestamp")
    }

    @Test func `A9: a signature covers the path as it was sent`() {
        let sent = HawkTarget(host: "tc.example.test", port: 8080, resource: "/api/x/v1/a%2Fb")
        let header = Hawk.authorization(for: "GET", url: sent, credentials: Vectors.credentials, now: now)
        let directory = Vectors.directory()
        #expect(directory.authenticate(Vectors.request(header, resource: "/api/x/v1/a%2Fb"), now: now).clientID != nil)
        let decoded = directory.authenticate(Vectors.request(header, resource: "/api/x/v1/a/b"), now: now)
        #expect(decoded.message == "Unauthorized: Bad mac")
    }

    @Test func `A10: host compares without case, the port must fit`() {
        var request = Vectors.request(Vectors.header())
        request.host = "TC.Example.TEST"
        #expect(Vectors.directory().authenticate(request, now: now).clientID != nil)
        request.port = 443
        #expect(Vectors.directory().authenticate(request, now: now).message == "Unauthorized: Bad mac")
    }

    @Test func `the hash is handed to the caller for comparison`() {
        let header = Hawk.authorization(
            for: "GET",
            url: Vectors.target,
            credentials: Vectors.credentials,
            payload: ("", []),
            now: now
        )
        guard case .success(_, _, _, let hash) = Vectors.directory().authenticate(Vectors.request(header), now: now)
        else { return #expect(Bool(false), "must authenticate") }
        #expect(hash == "B0weSUXsMcb5UhL41FZbrUJCAotzSI3HawE1NPLRUz8=")
    }

    // MARK: - Signed URLs

    @Test(arguments: ["http://tc.example.test:8080/a/b", "http://tc.example.test:8080/a/b?x=1&y=2"])
    func `A11: a signed URL works until it expires, for GET and HEAD`(_ url: String) throws {
        let signed = try #require(Hawk.signedURL(url, credentials: Vectors.credentials, now: now))
        var request = Vectors.request(nil, resource: String(signed.dropFirst("http://tc.example.test:8080".count)))
        let directory = Vectors.directory()
        let last = now + .seconds(899)
        #expect(directory.authenticate(request, now: last).clientID == Vectors.clientID)
        #expect(directory.authenticate(request, now: now + .seconds(900)).message == "Unauthorized: Access expired")
        request.method = "head"
        #expect(directory.authenticate(request, now: last).clientID != nil)
        request.method = "post"
        #expect(directory.authenticate(request, now: last).message == "Unauthorized: Invalid method")
        request.method = "get"
        request.authorization = Vectors.header()
        #expect(directory.authenticate(request, now: last).message == "Bad Request: Multiple authentications")
    }

    @Test(arguments: [
        ("/p?bewit=B&x=1", "/p?x=1"), ("/p?x=1&bewit=B", "/p?x=1"), ("/p?a&bewit=B&c", "/p?a&c"), ("/p?bewit=B", "/p"),
    ])
    func `a bewit is taken out of the resource wherever it stands`(_ text: String, _ rest: String) {
        let signed = SignedResource(text)
        #expect(signed?.bewit == "B")
        #expect(signed?.resource == rest)
    }

    @Test(arguments: [
        ("", "Unauthorized: Empty bewit"), ("@", "Bad Request: Invalid bewit encoding"),
        ("YQ", "Bad Request: Invalid bewit structure"), ("XFxc", "Bad Request: Missing bewit attributes"),
    ])
    func `a malformed bewit is refused`(_ bewit: String, _ message: String) {
        let request = Vectors.request(nil, resource: "/p?bewit=\(bewit)")
        #expect(Vectors.directory().authenticate(request, now: now).message == message)
    }

    // MARK: - Extension

    @Test(arguments: ["@@", "W10=", "eA=="])
    func `A31: an undecodable extension is refused`(_ ext: String) {
        #expect(result(ext: ext).message == "Failed to parse ext")
    }

    @Test func `A31: the extension may be URL-safe and without padding`() {
        #expect(result(ext: "e30").clientID != nil)
        #expect(result(ext: Base64.urlEncoded(Array(#"{"x":"???>>>"}"#.utf8))).clientID != nil)
    }

    @Test func `A23: authorized scopes limit, and are expanded afterwards`() {
        let roles = [
            Role(id: "anonymous", scopes: ["read:*"]), Role(id: "hook-id:g/h", scopes: ["queue:create-task:x"]),
        ]
        let directory = Vectors.directory(scopes: ["assume:hook-id:*"], roles: roles)
        func scopes(_ authorized: [String]) -> AuthenticationResult {
            directory.authenticate(Vectors.request(Vectors.header(authorizedScopes: authorized)), now: now)
        }
        #expect(scopes([]).scopes == ["assume:anonymous", "read:*"])
        #expect(
            scopes(["assume:hook-id:g/h"]).scopes
                == ["assume:anonymous", "assume:hook-id:g/h", "queue:create-task:x", "read:*"]
        )
        #expect(scopes(["other"]).message?.hasPrefix("Supplied credentials do not satisfy authorizedScopes") == true)
        #expect(
            result(ext: Base64.encoded(Array(#"{"authorizedScopes":"x"}"#.utf8))).message
                == "ext.authorizedScopes must be an array"
        )
    }

    private func result(ext: String? = nil, at timestamp: String = "1500000000") -> AuthenticationResult {
        var header = Hawk.Header(id: Vectors.clientID, timestamp: timestamp, nonce: "n", mac: "", ext: ext)
        let artifacts = Hawk.Artifacts(
            timestamp: header.timestamp,
            nonce: "n",
            method: "GET",
            target: Vectors.target,
            ext: ext
        )
        header.mac = Hawk.mac(.header, artifacts, key: Vectors.key)
        return Vectors.directory().authenticate(Vectors.request(header.text), now: now)
    }
}
