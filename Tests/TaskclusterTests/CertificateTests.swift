// SPDX-License-Identifier: MPL-2.0

import JSON
import Schedules
import Testing

@testable import Taskcluster

struct CertificateTests {
    let now = Vectors.now

    @Test(arguments: [
        ("temp/two", ["scope:a", "scope:b/*"], "e0dPw+tkSr7I3vvbKdsV0rFBdjqnfO5sVXcbu9MdGJw="),
        (nil, ["scope:a", "scope:b/*"], "skJ72zhrXS8yUJMVlB2hC3z7ArCzKacgr+QURJnYkmc="),
        (nil, [], "Tg8mk4x+LJp6AnI8ujQwRQy12g7mVr4zhI7ClSY+VMk="),
    ])
    func `the published vectors of temporary credentials`(_ name: String?, _ scopes: [String], _ signature: String)
        throws
    {
        let credentials = TemporaryCredentials.issue(
            named: name,
            by: Vectors.issuer,
            scopes: scopes,
            start: Timestamp(milliseconds: 1_577_836_800_000),
            expiry: Timestamp(milliseconds: 1_577_923_200_000),
            seed: "AAAAAAAAQAAAAAAAAAAAAAAAAAAAAAQAAAAAAAAAAAAA"
        )
        #expect(credentials.accessToken == "vYzGMjqeBj-gfDdY3FIDsuyFUeZVnIXWdBQQVjppkVU")
        #expect(credentials.clientID == name ?? "issuer/one")
        let certificate = try JSONValue(parsing: try #require(credentials.certificate))
        #expect(certificate["signature"]?.string == signature)
        #expect(certificate["start"]?.int == 1_577_836_800_000)
    }

    @Test func `without scopes the JavaScript client's signature is good as well`() throws {
        let certificate = try Certificate(
            [
                "version": 1, "scopes": [], "start": 1_577_836_800_000, "expiry": 1_577_923_200_000,
                "seed": "AAAAAAAAQAAAAAAAAAAAAAAAAAAAAAQAAAAAAAAAAAAA",
                "signature": "bTX3/wEzj0zXgjC/LAUkY7IOc4hKao1BNrFNg0b5PFE=",
            ],
            clientID: "issuer/one"
        )
        #expect(certificate.isSigned(clientID: "issuer/one", key: Vectors.key))
    }

    @Test func `A20: a name must be one the issuer may create`() {
        #expect(result(named: "temp/two").clientID == "temp/two")
        #expect(
            result(named: "other").message
                == "ext.certificate issuer `issuer/one` does not satisfy `auth:create-client:other`"
        )
    }

    @Test(arguments: [(4, true), (6, false)])
    func `A21: a certificate may begin five minutes ahead`(_ minutes: Int, _ isGood: Bool) {
        let result = result(start: now + .seconds(minutes * 60))
        #expect(result.message == (isGood ? nil : "ext.certificate.start must be before now"))
    }

    @Test(arguments: [(4, true), (6, false)])
    func `A21: a certificate may have ended five minutes ago`(_ minutes: Int, _ isGood: Bool) {
        let result = result(start: now - .seconds(7200), expiry: now - .seconds(minutes * 60))
        #expect(result.message == (isGood ? nil : "ext.certificate.expiry must be after now"))
    }

    @Test(arguments: [(31, true), (32, false)])
    func `A21: a certificate lasts 31 days at most`(_ days: Int, _ isGood: Bool) {
        let result = result(start: now, expiry: now + .seconds(days * 86400))
        #expect(result.message == (isGood ? nil : "ext.certificate cannot last longer than 31 days"))
    }

    @Test func `A21: a certificate grants nothing its issuer lacks`() {
        #expect(
            result(scopes: ["elsewhere"]).message
                == "ext.certificate issuer `issuer/one` does not satisfy all of the certificate's scopes"
        )
    }

    @Test func `A22: changing the order of the scopes breaks the signature`() throws {
        let issued = issue(scopes: ["scope:a", "scope:b"])
        var certificate = try JSONValue(parsing: try #require(issued.certificate))
        certificate["scopes"] = ["scope:b", "scope:a"]
        let forged = Hawk.Credentials(
            clientID: issued.clientID,
            accessToken: issued.accessToken,
            certificate: certificate.text()
        )
        #expect(verify(forged).message == "ext.certificate.signature is not valid, or wrong clientId provided")
    }

    @Test(
        arguments: [
            ("version", 2, "ext.certificate.version must be 1"), ("seed", 5, "ext.certificate.seed must be a string"),
            ("seed", "short", "ext.certificate.seed must be 44 characters"),
            ("start", "x", "ext.certificate.start must be a number"),
            ("expiry", nil, "ext.certificate.expiry must be a number"),
            ("expiry", 1e300, "ext.certificate.start and expiry must be milliseconds since 1970"),
            ("scopes", "x", "ext.certificate.scopes must be an array"),
            ("scopes", [1], "ext.certificate.scopes must be an array of valid scopes"),
            ("scopes", ["é"], "ext.certificate.scopes must be an array of valid scopes"),
            ("issuer", 1, "ext.certificate.issuer must be a string"),
            ("issuer", "issuer/one", "ext.certificate.issuer must differ from the supplied clientId"),
            ("clientId", "x", "ext.certificate.clientId must only be used with ext.certificate.issuer"),
        ] as [(String, JSONValue, String)]
    )
    func `a malformed certificate is refused by what is wrong with it`(
        _ member: String,
        _ value: JSONValue,
        _ message: String
    ) throws {
        let issued = issue()
        var certificate = try JSONValue(parsing: try #require(issued.certificate))
        certificate[member] = value
        let forged = Hawk.Credentials(
            clientID: issued.clientID,
            accessToken: issued.accessToken,
            certificate: certificate.text()
        )
        #expect(verify(forged).message == message)
    }

    @Test func `temporary credentials sign URLs and take authorized scopes, but issue nothing`() throws {
        let issued = issue(named: "temp/x", scopes: ["scope:*"])
        let directory = Vectors.directory()
        let limited = directory.authenticate(
            Vectors.request(Vectors.header(issued, authorizedScopes: ["scope:a"])),
            now: now
        )
        #expect(limited.scopes == ["assume:anonymous", "scope:a"])
        let url = try #require(Hawk.signedURL("http://tc.example.test:8080/x", credentials: issued, now: now))
        let resource = String(url.dropFirst("http://tc.example.test:8080".count))
        #expect(directory.authenticate(Vectors.request(nil, resource: resource), now: now).clientID == "temp/x")
        let second = TemporaryCredentials.issue(
            by: Hawk.Credentials(clientID: issued.clientID, accessToken: issued.accessToken),
            scopes: [],
            start: now,
            expiry: now + .seconds(60)
        )
        #expect(verify(second).message == "Client with clientId 'temp/x' not found")
    }

    @Test func `a remembered certificate still expires`() {
        let directory = Vectors.directory()
        let issued = issue(expiry: now + .seconds(600))
        func verdict(_ seconds: Int) -> String? {
            let moment = now + .seconds(seconds)
            return directory.authenticate(Vectors.request(Vectors.header(issued, at: moment)), now: moment).message
        }
        #expect(verdict(0) == nil)
        #expect(verdict(890) == nil)
        #expect(verdict(901) == "ext.certificate.expiry must be after now")
    }

    @Test func `an expiry is the earlier of issuer's and certificate's`() {
        guard case .success(_, let expires, _, _) = result(expiry: now + .seconds(60)) else {
            return #expect(Bool(false), "must authenticate")
        }
        #expect(expires == now + .seconds(60))
    }

    private func issue(
        named name: String? = nil,
        scopes: [String] = ["scope:a"],
        start: Timestamp? = nil,
        expiry: Timestamp? = nil
    ) -> Hawk.Credentials {
        let start = start ?? now
        return TemporaryCredentials.issue(
            named: name,
            by: Vectors.issuer,
            scopes: scopes,
            start: start,
            expiry: expiry ?? start + .seconds(3600)
        )
    }

    private func verify(_ credentials: Hawk.Credentials) -> AuthenticationResult {
        Vectors.directory().authenticate(Vectors.request(Vectors.header(credentials)), now: now)
    }

    private func result(
        named name: String? = nil,
        scopes: [String] = ["scope:a"],
        start: Timestamp? = nil,
        expiry: Timestamp? = nil
    ) -> AuthenticationResult {
        verify(issue(named: name, scopes: scopes, start: start, expiry: expiry))
    }
}
